/* Answers spec/PROTOCOL.md for the partition rule alone, to show that little is needed. No other JSON is read than what
 * the protocol says is written: the fields of a call are found by their names. */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8192 };

/* The value of a field, behind its name and the colon, or NULL. */
static const char *field(const char *line, const char *name) {
    char key[32];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *at = strstr(line, key);
    return at == NULL ? NULL : at + strlen(key);
}

/* Reads a list of integers, and gives how many there are. */
static int list(const char *line, const char *name, long long *out) {
    const char *at = field(line, name);
    int length = 0;
    if (at == NULL || *at++ != '[') return -1;
    while (*at != ']' && length < MOST) {
        char *end;
        out[length++] = strtoll(at, &end, 10);
        at = *end == ',' ? end + 1 : end;
    }
    return length;
}

static long long start(const char *s, long long e, long long r, long long rank) {
    if (*s == 'r') return rank;
    if (*s == 'p') return rank * e / r;
    return rank * (e / r) + (rank < e % r ? rank : e % r);
}

static long long count(const char *s, long long e, long long r, long long rank) {
    if (*s == 'p') return start(s, e, r, rank + 1) - start(s, e, r, rank);
    return e / r + (rank < e % r);
}

static long long owner(const char *s, long long e, long long r, long long expert) {
    if (*s == 'r') return expert % r;
    if (*s == 'p') return ((expert + 1) * r - 1) / e;
    long long larger = e % r * (e / r + 1);
    return expert < larger ? expert / (e / r + 1) : e % r + (expert - larger) / (e / r);
}

static long long local_index(const char *s, long long e, long long r, long long expert) {
    return *s == 'r' ? expert / r : expert - start(s, e, r, owner(s, e, r, expert));
}

static const struct {
    const char *call, *ids;
    long long (*ask)(const char *, long long, long long, long long);
} CALLS[] = {
    {"\"partition.count\"", "ranks", count},
    {"\"partition.start\"", "ranks", start},
    {"\"partition.owner\"", "experts", owner},
    {"\"partition.local_index\"", "experts", local_index},
};

/* Whether the value of a field is one of the strategies. */
static int is_strategy(const char *value) {
    static const char *const NAMES[] = {"\"linear\"", "\"round_robin\"", "\"proportional\""};
    for (size_t at = 0; at < sizeof NAMES / sizeof *NAMES; at++)
        if (value != NULL && strncmp(value, NAMES[at], strlen(NAMES[at])) == 0) return 1;
    return 0;
}

static void answer(const char *line) {
    static long long experts[MOST], ranks[MOST], ids[MOST];
    const char *call = field(line, "call"), *strategy = field(line, "strategy");
    for (size_t at = 0; at < sizeof CALLS / sizeof *CALLS; at++) {
        if (strncmp(call, CALLS[at].call, strlen(CALLS[at].call)) != 0) continue;
        int length = list(line, CALLS[at].ids, ids);
        /* Of owners, `experts` is the list of ids, and `num_experts` has a name of its own. */
        list(line, "num_experts", experts);
        list(line, "num_ranks", ranks);
        if (!is_strategy(strategy)) {
            printf("\"error\":{\"kind\":\"value\",\"message\":\"there is no such strategy\"}}\n");
            return;
        }
        for (int i = 0; i < length; i++) {
            if (experts[i] < 0 || experts[i] > INT_MAX || ranks[i] < 1 || ranks[i] > INT_MAX) {
                printf("\"error\":{\"kind\":\"value\",\"message\":\"%lld experts, %lld ranks\"}}\n", experts[i], ranks[i]);
                return;
            }
            long long end = CALLS[at].ids[0] == 'r' ? ranks[i] : experts[i];
            if (ids[i] < 0 || ids[i] >= end) {
                printf("\"error\":{\"kind\":\"index\",\"message\":\"%lld is not in 0..%lld\"}}\n", ids[i], end);
                return;
            }
        }
        printf("\"answer\":[");
        for (int i = 0; i < length; i++)
            printf(i == 0 ? "%lld" : ",%lld", CALLS[at].ask(strategy + 1, experts[i], ranks[i], ids[i]));
        printf("]}\n");
        return;
    }
    printf("\"answer\":{\"protocol\":1,\"offers\":[\"partition.count\",\"partition.start\",\"partition.owner\","
           "\"partition.local_index\"]}}\n");
}

int main(void) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        printf("{\"id\":%lld,", strtoll(field(line, "id"), NULL, 10));
        answer(line);
        fflush(stdout);
    }
    free(line);
    return 0;
}
