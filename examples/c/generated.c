#include "generated.h"

#include <math.h>

static const size_t MOST = (size_t)1 << 28; /* numbers in a tensor */

/* Word i of the stream of a seed (SplitMix64); all arithmetic wraps. */
static uint64_t word(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Sixteen bits of each word, as a number from -1 up to 1, times 2^-shift. */
static void fill(float *numbers, size_t count, uint64_t seed, int shift)
{
    for (size_t i = 0; i < count; i++) {
        int high = (int)(word(seed, i) >> 48);
        numbers[i] = (float)ldexp(high - 32768, -15 - shift);
    }
}

/* A member of an entry that is a whole number in 0 ... most, or -1. */
static int64_t whole(const Json *entry, const char *name, int64_t most)
{
    const Json *found = json_member(entry, name);
    bool good = found != NULL && found->kind == JSON_NUMBER && found->whole;
    return good && found->integer >= 0 && found->integer <= most ? found->integer : -1;
}

static Status add(const Json *entry, Tensors *all)
{
    Shape shape = {0};
    size_t count = 1;
    int64_t seed = whole(entry, "seed", INT64_MAX), shift = whole(entry, "shift", 100);
    REQUIRE(tensors_find(all, entry->key) == NULL, "generated: %s is there already", entry->key);
    REQUIRE(all->count < MAX_TENSORS, "generated: more tensors than any op takes");
    REQUIRE(seed >= 0 && shift >= 0, "generated: %s needs a seed and a shift", entry->key);
    REQUIRE(shape_read(json_member(entry, "shape"), &shape), "generated: the shape of %s is none", entry->key);
    for (size_t i = 0; i < shape.rank; i++) {
        REQUIRE(shape.size[i] > 0 && shape.size[i] <= MOST / count, "generated: %s is empty or too large", entry->key);
        count *= shape.size[i];
    }
    fill(tensors_add(all, entry->key, F32, shape), count, (uint64_t)seed, (int)shift);
    return DONE;
}

Status generated_add(const Json *prompt, Tensors *all)
{
    const Json *entries = json_member(prompt, "generated");
    Status status = DONE;
    if (entries != NULL && entries->kind != JSON_OBJECT)
        return refused("generated: this is no JSON object");
    for (const Json *entry = entries ? entries->child : NULL; entry != NULL && status == DONE; entry = entry->next)
        status = add(entry, all);
    return status;
}
