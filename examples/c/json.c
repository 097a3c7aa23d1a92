#include "json.h"

#include "base.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 32 }; /* arrays and objects within each other */

typedef struct {
    const char *at, *end;
    int depth;
} Reader;

static Json *read_value(Reader *r);

/* The next character, or 0 at the end. */
static char peek(const Reader *r)
{
    return r->at < r->end ? *r->at : '\0';
}

static void skip_space(Reader *r)
{
    while (r->at < r->end && strchr(" \t\r\n", *r->at) != NULL && *r->at != '\0')
        r->at++;
}

/* Step over one character, if it is this one. */
static bool step(Reader *r, char wanted)
{
    skip_space(r);
    if (r->at == r->end || *r->at != wanted)
        return false;
    r->at++;
    return true;
}

static Json *new_value(JsonKind kind)
{
    Json *value = take(1, sizeof *value);
    value->kind = kind;
    return value;
}

/* null, true or false. */
static Json *read_word(Reader *r, const char *word, JsonKind kind)
{
    size_t length = strlen(word);
    if ((size_t)(r->end - r->at) < length || memcmp(r->at, word, length) != 0)
        return NULL;
    r->at += length;
    Json *value = new_value(kind);
    value->truth = word[0] == 't';
    return value;
}

/* Step over digits: how many they are. */
static size_t digits(Reader *r)
{
    const char *start = r->at;
    while (peek(r) >= '0' && peek(r) <= '9')
        r->at++;
    return (size_t)(r->at - start);
}

static Json *read_number(Reader *r)
{
    const char *start = r->at;
    if (peek(r) == '-')
        r->at++;
    bool zero = peek(r) == '0';
    size_t before = digits(r);
    if (before == 0 || (zero && before > 1))
        return NULL;
    Json *value = new_value(JSON_NUMBER);
    value->whole = true;
    if (peek(r) == '.') {
        r->at++;
        value->whole = false;
        if (digits(r) == 0)
            return NULL;
    }
    if (peek(r) == 'e' || peek(r) == 'E') {
        r->at++;
        value->whole = false;
        if (peek(r) == '+' || peek(r) == '-')
            r->at++;
        if (digits(r) == 0)
            return NULL;
    }
    const char *text = take_text(start, (size_t)(r->at - start));
    value->number = strtod(text, NULL);
    value->integer = strtoll(text, NULL, 10);
    return value;
}

/* The items of an array, or the members of an object, up to its end. */
static Json *read_children(Reader *r, JsonKind kind)
{
    const char end = kind == JSON_ARRAY ? ']' : '}';
    Json *all = new_value(kind), **last = &all->child;
    r->at++;
    if (++r->depth > DEEPEST)
        return NULL;
    while (!step(r, end)) {
        if (all->child != NULL && !step(r, ','))
            return NULL;
        skip_space(r);
        char *key = kind == JSON_OBJECT ? text_read(&r->at, r->end) : NULL;
        if (kind == JSON_OBJECT && (key == NULL || !step(r, ':')))
            return NULL;
        *last = read_value(r);
        if (*last == NULL)
            return NULL;
        (*last)->key = key;
        last = &(*last)->next;
    }
    r->depth--;
    return all;
}

static Json *read_value(Reader *r)
{
    skip_space(r);
    switch (peek(r)) {
    case '{':
        return read_children(r, JSON_OBJECT);
    case '[':
        return read_children(r, JSON_ARRAY);
    case 'n':
        return read_word(r, "null", JSON_NULL);
    case 't':
        return read_word(r, "true", JSON_BOOL);
    case 'f':
        return read_word(r, "false", JSON_BOOL);
    case '"': {
        Json *value = new_value(JSON_STRING);
        value->text = text_read(&r->at, r->end);
        return value->text == NULL ? NULL : value;
    }
    default:
        return read_number(r);
    }
}

const Json *json_read(const char *text, size_t length)
{
    Reader r = {text, text + length, 0};
    Json *value = read_value(&r);
    skip_space(&r);
    return r.at == r.end ? value : NULL;
}

const Json *json_member(const Json *object, const char *key)
{
    if (object == NULL || object->kind != JSON_OBJECT)
        return NULL;
    const Json *found = NULL; /* of several of one name the last counts, as in most readers */
    for (const Json *member = object->child; member != NULL; member = member->next) {
        if (strcmp(member->key, key) == 0)
            found = member;
    }
    return found;
}

const char *json_text(const Json *object, const char *key)
{
    const Json *found = json_member(object, key);
    return found != NULL && found->kind == JSON_STRING ? found->text : NULL;
}
