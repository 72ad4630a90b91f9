/* A PKCS #11 module that is another one with something going wrong in it. Built without headers or start files.

   MEDDLER_MODULE  the real module
   MEDDLER_LOG     a file to which each call of a meddled function adds a line
   MEDDLER_FAULT   INDEX:WHEN:WHAT, where INDEX is the function's place in CK_FUNCTION_LIST (PKCS #11 2.40),
                   WHEN is b (before) or a (after) the real call,
                   WHAT is c (crash), h (hang) or the CK_RV to return, in decimal
*/
typedef unsigned long word;
typedef word (*call)(word, word, word, word, word, word, word, word);
typedef struct { unsigned char version[8]; call functions[68]; } list;

void *dlopen(const char *, int);
void *dlsym(void *, const char *);
char *getenv(const char *);
void *memcpy(void *, const void *, word);
int snprintf(char *, word, const char *, ...);
long strtol(const char *, char **, int);
int open(const char *, int, ...);
long write(int, const void *, word);
int close(int);
void abort(void);
int pause(void);

enum { INITIALIZE = 0, LOGIN = 18, DESTROY = 22, SIGN = 43, GENERATE_PAIR = 59 };

static list ours, *real;

static word meddle(int index, word a, word b, word c, word d, word e, word f, word g, word h) {
    const char *log = getenv("MEDDLER_LOG"), *fault = getenv("MEDDLER_FAULT");
    char line[16], *rest = "";
    int hit = fault && strtol(fault, &rest, 10) == index, before = rest[0] && rest[1] == 'b';
    word result = 0;
    if (log) {
        int file = open(log, 02001 | 0100, 0600); /* O_WRONLY | O_APPEND | O_CREAT */
        write(file, line, snprintf(line, sizeof line, "%d\n", index));
        close(file);
    }
    if (!hit || !before) result = real->functions[index](a, b, c, d, e, f, g, h);
    if (!hit) return result;
    if (rest[3] == 'c') abort();
    if (rest[3] == 'h') for (;;) pause();
    return strtol(rest + 3, 0, 10);
}

#define MEDDLED(name, index)                                                                  \
    static word name(word a, word b, word c, word d, word e, word f, word g, word h) {        \
        return meddle(index, a, b, c, d, e, f, g, h);                                         \
    }
MEDDLED(initialize, INITIALIZE)
MEDDLED(login, LOGIN)
MEDDLED(destroy, DESTROY)
MEDDLED(sign, SIGN)
MEDDLED(generate_pair, GENERATE_PAIR)

word C_GetFunctionList(list **out) {
    void *module = dlopen(getenv("MEDDLER_MODULE"), 2); /* RTLD_NOW */
    word (*get)(list **) = module ? (word (*)(list **))dlsym(module, "C_GetFunctionList") : 0;
    if (!get || get(&real)) return 5; /* CKR_GENERAL_ERROR */
    memcpy(&ours, real, sizeof ours);
    ours.functions[INITIALIZE] = initialize;
    ours.functions[LOGIN] = login;
    ours.functions[DESTROY] = destroy;
    ours.functions[SIGN] = sign;
    ours.functions[GENERATE_PAIR] = generate_pair;
    *out = &ours;
    return 0;
}
