/* What each op takes, as in the table of SPEC section 3. */
#ifndef SIGNATURES_H
#define SIGNATURES_H

typedef enum { NUMBERS, IDS, INDEX, MASK } Holds; /* IDS are checked as ids of experts (ARR-6), an INDEX is not */
typedef enum { ALWAYS, WITH_BIAS, WITH_SHARED, OPTIONAL } When;

/* One input: its letters, one for each axis. S is SF. */
typedef struct {
    const char *name, *letters;
    Holds holds;
    When when;
} Input;

/* Up to an input without a name. */
extern const Input GATE_TAKES[], GATE_BACKWARD_TAKES[], EXPERT_TAKES[], EXPERT_BACKWARD_TAKES[];
extern const Input DISPATCH_TAKES[], COMBINE_TAKES[], MOE_TAKES[], MOE_BACKWARD_TAKES[];

#endif
