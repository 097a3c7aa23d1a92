#include "safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Bytes are copied as they are: both the file and the machine are little-endian. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the files are little-endian");

enum { PREFIX = 8, LONGEST_HEADER = 1 << 20 };

/* The format's dtypes; the first ones are those that ops take. */
static const struct {
    const char *name;
    Dtype dtype;
    size_t size;
} DTYPES[] = {
    {"F32", F32, 4},   {"I64", I64, 8},   {"I32", I32, 4},      {"BOOL", BOOL, 1},
    {"F64", OTHER, 8}, {"F16", OTHER, 2}, {"BF16", OTHER, 2},   {"I16", OTHER, 2},
    {"I8", OTHER, 1},  {"U64", OTHER, 8}, {"U32", OTHER, 4},    {"U16", OTHER, 2},
    {"U8", OTHER, 1},  {"F8_E4M3", OTHER, 1}, {"F8_E5M2", OTHER, 1},
};
enum { N_DTYPES = sizeof DTYPES / sizeof *DTYPES };

const Tensor *tensors_find(const Tensors *all, const char *name)
{
    for (size_t i = 0; i < all->count; i++) {
        if (strcmp(all->tensor[i].name, name) == 0)
            return &all->tensor[i];
    }
    return NULL;
}

void *tensors_add(Tensors *all, const char *name, Dtype dtype, Shape shape)
{
    Tensor *t = &all->tensor[all->count++];
    *t = (Tensor){.name = name, .dtype = dtype, .shape = shape, .count = 1};
    for (size_t i = 0; i < shape.rank; i++)
        t->count *= shape.size[i];
    t->data = take(t->count, DTYPES[dtype].size);
    return t->data;
}

bool shape_read(const Json *array, Shape *shape)
{
    *shape = (Shape){0};
    if (array == NULL || array->kind != JSON_ARRAY)
        return false;
    for (const Json *item = array->child; item != NULL; item = item->next) {
        if (shape->rank == MAX_RANK || item->kind != JSON_NUMBER || !item->whole || item->integer < 0)
            return false;
        shape->size[shape->rank++] = (size_t)item->integer;
    }
    return true;
}

/* The dtype and shape of a tensor, and the bytes that it then has. */
static Status read_kind(const Json *entry, Tensor *t, size_t *length)
{
    const char *dtype = json_text(entry, "dtype");
    size_t which = 0;
    while (which < N_DTYPES && (dtype == NULL || strcmp(dtype, DTYPES[which].name) != 0))
        which++;
    REQUIRE(which < N_DTYPES, "safetensors: the dtype of %s is unknown", t->name);
    t->dtype = DTYPES[which].dtype;
    REQUIRE(shape_read(json_member(entry, "shape"), &t->shape), "safetensors: the shape of %s is none", t->name);
    *length = DTYPES[which].size;
    t->count = 1;
    for (size_t i = 0; i < t->shape.rank; i++) {
        size_t size = t->shape.size[i];
        REQUIRE(size == 0 || *length <= SIZE_MAX / size, "safetensors: %s is too large", t->name);
        *length *= size;
        t->count *= size;
    }
    return DONE;
}

/* One tensor of the header, its bytes copied. */
static Status read_tensor(const Json *entry, const char *data, size_t all_bytes, Tensor *t, size_t *used)
{
    Shape offsets;
    size_t length = 0;
    t->name = entry->key;
    Status status = read_kind(entry, t, &length);
    if (status != DONE)
        return status;
    bool two = shape_read(json_member(entry, "data_offsets"), &offsets) && offsets.rank == 2;
    REQUIRE(two, "safetensors: %s has no place", t->name);
    size_t begin = offsets.size[0], end = offsets.size[1];
    REQUIRE(begin <= end && end <= all_bytes, "safetensors: %s lies outside the file", t->name);
    REQUIRE(end - begin == length, "safetensors: the place of %s has another size", t->name);
    t->data = take(length, 1);
    memcpy(t->data, data + begin, length);
    *used += length;
    return DONE;
}

/* All tensors of the header, which lie in so many bytes of data. */
static Status read_entries(const Json *entries, const char *data, size_t all_bytes, Tensors *all)
{
    size_t used = 0;
    for (const Json *entry = entries->child; entry != NULL; entry = entry->next) {
        if (strcmp(entry->key, "__metadata__") == 0)
            continue;
        REQUIRE(all->count < MAX_TENSORS, "safetensors: more tensors than any op takes");
        REQUIRE(tensors_find(all, entry->key) == NULL, "safetensors: two tensors are named %s", entry->key);
        Status status = read_tensor(entry, data, all_bytes, &all->tensor[all->count], &used);
        if (status != DONE)
            return status;
        all->count++;
    }
    REQUIRE(used == all_bytes, "safetensors: bytes of no tensor, or of two");
    return DONE;
}

Status tensors_read(const char *path, Tensors *all)
{
    char *bytes = NULL;
    size_t size = 0;
    uint64_t header;
    *all = (Tensors){0};
    Status status = read_file(path, &bytes, &size);
    if (status != DONE)
        return status;
    REQUIRE(size >= PREFIX, "safetensors: the file has no header");
    memcpy(&header, bytes, PREFIX);
    REQUIRE(header <= LONGEST_HEADER && header <= size - PREFIX, "safetensors: the header is too long");
    const Json *entries = json_read(bytes + PREFIX, (size_t)header);
    REQUIRE(entries != NULL && entries->kind == JSON_OBJECT, "safetensors: the header is no JSON object");
    return read_entries(entries, bytes + PREFIX + header, size - PREFIX - (size_t)header, all);
}

/* Text of the header: where each tensor lies. */
static size_t write_header(const Tensors *all, char *header, size_t most)
{
    size_t length = 1, place = 0;
    header[0] = '{';
    for (size_t i = 0; i < all->count; i++) {
        const Tensor *t = &all->tensor[i];
        const char *dtype = DTYPES[t->dtype].name, *comma = i > 0 ? "," : "";
        size_t end = place + t->count * DTYPES[t->dtype].size;
        length += (size_t)snprintf(header + length, most - length, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", comma,
                                   t->name, dtype);
        for (size_t d = 0; d < t->shape.rank; d++)
            length += (size_t)snprintf(header + length, most - length, d ? ",%zu" : "%zu", t->shape.size[d]);
        length += (size_t)snprintf(header + length, most - length, "],\"data_offsets\":[%zu,%zu]}", place, end);
        place = end;
    }
    header[length++] = '}';
    while (length % PREFIX != 0) /* so that the numbers are aligned */
        header[length++] = ' ';
    return length;
}

Status tensors_write(const char *path, const Tensors *all)
{
    static char header[MAX_TENSORS * 256];
    uint64_t length = write_header(all, header, sizeof header);
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        return failed("%s cannot be written", path);
    fwrite(&length, PREFIX, 1, file);
    fwrite(header, 1, (size_t)length, file);
    for (size_t i = 0; i < all->count; i++)
        fwrite(all->tensor[i].data, DTYPES[all->tensor[i].dtype].size, all->tensor[i].count, file);
    int wrong = ferror(file);
    return fclose(file) == 0 && !wrong ? DONE : failed("%s cannot be written", path);
}
