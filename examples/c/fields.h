/* The fields of a config, one by one: their names, and what is legal for each (SPEC section 5). */
#ifndef FIELDS_H
#define FIELDS_H

#include "config.h"

/* Read every field, or its neutral value; whether fields agree with each other is not looked at. */
Status fields_read(const Json *object, Config *cfg);

#endif
