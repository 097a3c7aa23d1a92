/* Strings of JSON: what stands between two quotes, and the way back. */
#ifndef TEXT_H
#define TEXT_H

#include <stdio.h>

/* Read a string at *at, which stands on its first quote, and step behind its last one: the text in UTF-8, or NULL. */
char *text_read(const char **at, const char *end);

/* Write a text with its quotes. */
void text_write(FILE *file, const char *text);

#endif
