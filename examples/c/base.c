#define _POSIX_C_SOURCE 200809L

#include "base.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const size_t LONGEST = (size_t)1 << 30; /* bytes of a file */

static char kept[256];

/* Keep a reason in ASCII: a name that was cut in the middle of a character must not spoil a line of JSON. */
static void keep(const char *format, va_list arguments)
{
    vsnprintf(kept, sizeof kept, format, arguments);
    for (char *c = kept; *c; c++) {
        if ((unsigned char)*c >= 128)
            *c = '?';
    }
}

Status refused(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    keep(format, arguments);
    va_end(arguments);
    return REFUSED;
}

Status not_supported(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    keep(format, arguments);
    va_end(arguments);
    return NOT_SUPPORTED;
}

Status failed(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    keep(format, arguments);
    va_end(arguments);
    return FAILED;
}

const char *reason(void)
{
    return kept;
}

/* What was taken hangs on one chain. */
typedef struct Block {
    struct Block *next;
    max_align_t data[];
} Block;

static Block *chain;

void *take(size_t count, size_t size)
{
    Block *block = NULL;
    if (size == 0 || count <= (SIZE_MAX - sizeof(Block)) / size)
        block = calloc(1, sizeof(Block) + count * size);
    if (block == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(EXIT_FAILURE);
    }
    block->next = chain;
    chain = block;
    return block->data;
}

char *take_text(const char *start, size_t length)
{
    char *text = take(length + 1, 1);
    memcpy(text, start, length);
    return text;
}

char *take_path(const char *folder, const char *name)
{
    size_t length = strlen(folder) + 1 + strlen(name) + 1;
    char *path = take(length, 1);
    snprintf(path, length, "%s/%s", folder, name);
    return path;
}

void release_all(void)
{
    while (chain != NULL) {
        Block *next = chain->next;
        free(chain);
        chain = next;
    }
}

Status read_file(const char *path, char **bytes, size_t *length)
{
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode))
        return failed("%s is no file", path);
    if (about.st_size < 0 || (size_t)about.st_size > LONGEST)
        return failed("%s is too long", path);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return failed("%s cannot be opened", path);
    *length = (size_t)about.st_size;
    *bytes = take(*length + 1, 1);
    size_t got = fread(*bytes, 1, *length, file);
    fclose(file);
    return got == *length ? DONE : failed("%s cannot be read", path);
}
