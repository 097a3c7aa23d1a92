/* What all files need: what became of a question, memory that is freed together, the bytes of a file. */
#ifndef BASE_H
#define BASE_H

#include <stddef.h>

typedef enum {
    DONE,
    NOT_SUPPORTED, /* legal, but not offered here */
    REFUSED,       /* malformed: a clause of the specification is broken */
    FAILED         /* anything else that went wrong */
} Status;

/* Each keeps a reason (printf's format) and returns its status, so that one can write `return refused(...)`. */
__attribute__((format(printf, 1, 2))) Status refused(const char *format, ...);
__attribute__((format(printf, 1, 2))) Status not_supported(const char *format, ...);
__attribute__((format(printf, 1, 2))) Status failed(const char *format, ...);

/* The reason that was kept last. */
const char *reason(void);

#define REQUIRE(condition, ...)            \
    do {                                   \
        if (!(condition))                  \
            return refused(__VA_ARGS__);   \
    } while (0)

/* Memory of a question, all zeros; it is never NULL. If there is none left, the program ends. */
void *take(size_t count, size_t size);

/* A copy of so many characters, with a zero after them. */
char *take_text(const char *start, size_t length);

/* "folder/name". */
char *take_path(const char *folder, const char *name);

/* Free all that was taken. */
void release_all(void);

/* The bytes of a regular file, with a zero after them. */
Status read_file(const char *path, char **bytes, size_t *length);

#endif
