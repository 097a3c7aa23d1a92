#include "text.h"

#include "base.h"

#include <stdbool.h>
#include <string.h>

/* The four hexadecimal digits of \uXXXX, or -1. */
static long read_hex(const char **at, const char *end)
{
    const char *known = "0123456789abcdef0123456789ABCDEF";
    long code = 0;
    for (int i = 0; i < 4; i++) {
        const char *found = *at == end || **at == '\0' ? NULL : strchr(known, **at);
        if (found == NULL)
            return -1;
        code = 16 * code + (found - known) % 16;
        ++*at;
    }
    return code;
}

/* The second half of a character that is written as two \uXXXX, or -1. */
static long read_half(const char **at, const char *end)
{
    if (end - *at < 2 || memcmp(*at, "\\u", 2) != 0)
        return -1;
    *at += 2;
    long low = read_hex(at, end);
    return low >= 0xDC00 && low <= 0xDFFF ? low - 0xDC00 : -1;
}

/* The character of \uXXXX as UTF-8; false for half a character, and for zero, which would end the text. */
static bool read_unicode(const char **at, const char *end, char **to)
{
    long code = read_hex(at, end);
    if (code >= 0xD800 && code <= 0xDBFF) {
        long low = read_half(at, end);
        code = low < 0 ? -1 : 0x10000 + ((code - 0xD800) << 10) + low;
    }
    if (code <= 0 || (code >= 0xDC00 && code <= 0xDFFF))
        return false;
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3; /* bytes after the first */
    const int lead[] = {0, 0xC0, 0xE0, 0xF0};
    *(*to)++ = (char)(lead[more] | (int)(code >> (6 * more)));
    while (more-- > 0)
        *(*to)++ = (char)(0x80 | (int)((code >> (6 * more)) & 0x3F));
    return true;
}

/* What follows a backslash. */
static bool read_escape(const char **at, const char *end, char **to)
{
    const char *names = "\"\\/bfnrt", *meanings = "\"\\/\b\f\n\r\t";
    char name = *(*at)++;
    if (name == 'u')
        return read_unicode(at, end, to);
    const char *found = name == '\0' ? NULL : strchr(names, name);
    if (found == NULL)
        return false;
    *(*to)++ = meanings[found - names];
    return true;
}

/* The quote that ends a string, or NULL. */
static const char *last_quote(const char *at, const char *end)
{
    for (; at < end; at++) {
        if (*at == '"')
            return at;
        if (*at == '\\' && ++at == end)
            return NULL;
    }
    return NULL;
}

char *text_read(const char **at, const char *end)
{
    if (*at == end || **at != '"')
        return NULL;
    ++*at;
    const char *close = last_quote(*at, end);
    if (close == NULL)
        return NULL;
    char *text = take((size_t)(close - *at) + 1, 1), *to = text; /* no escape is shorter than what it means */
    while (*at < close) {
        char c = *(*at)++;
        if ((unsigned char)c < 32 || (c == '\\' && !read_escape(at, close, &to)))
            return NULL;
        if (c != '\\')
            *to++ = c;
    }
    ++*at;
    return text;
}

void text_write(FILE *file, const char *text)
{
    fputc('"', file);
    for (; *text; text++) {
        if ((unsigned char)*text < 32)
            fprintf(file, "\\u%04x", (unsigned)*text);
        else if (*text == '"' || *text == '\\')
            fprintf(file, "\\%c", *text);
        else
            fputc(*text, file);
    }
    fputc('"', file);
}
