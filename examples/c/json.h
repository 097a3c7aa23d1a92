/* A small reader of JSON: prompts, headers of safetensors and lines of the protocol. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonKind;

typedef struct Json {
    JsonKind kind;
    bool truth;         /* of a bool */
    bool whole;         /* of a number: it is written without a point and without an exponent */
    int64_t integer;    /* of a whole number; what is too large becomes the largest */
    double number;      /* of a number; what is too large becomes infinite */
    const char *text;   /* of a string, in UTF-8, without zeros */
    const char *key;    /* of a member of an object */
    struct Json *child; /* of an array or an object: the first */
    struct Json *next;  /* of a member or an item: the one after it */
} Json;

/* What so many characters say, or NULL if they are no JSON. It lives until release_all. */
const Json *json_read(const char *text, size_t length);

/* A member of an object; NULL if there is none, or if this is no object. */
const Json *json_member(const Json *object, const char *key);

/* The text of a member that is a string; NULL if it is none. */
const char *json_text(const Json *object, const char *key);

#endif
