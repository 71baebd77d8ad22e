#define GREETING "hello %s, version %s, user %d\n"
