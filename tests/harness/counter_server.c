/* A server that counts: each line gets the next number. With a size in MiB it holds that much
   memory, and writes to one page of each MiB ten times a second. Prints a line at each tenth
   second, so that its log shows whether it runs. */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned long counter;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t megabytes;
static char *memory;

static void *serve(void *argument)
{
    int client = (int)(long)argument;
    char line[64], answer[32];
    while (read(client, line, sizeof line) > 0) {
        pthread_mutex_lock(&lock);
        int length = snprintf(answer, sizeof answer, "%lu\n", ++counter);
        pthread_mutex_unlock(&lock);
        if (write(client, answer, length) != length)
            break;
    }
    close(client);
    return NULL;
}

static void *tick(void *unused)
{
    for (unsigned long round = 1;; round++) {
        for (size_t i = 0; i < megabytes; i++)
            memory[i << 20] = (char)round;
        printf("tick %lu\n", round);
        usleep(100000);
    }
    return unused;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    megabytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    if (megabytes) {
        memory = malloc(megabytes << 20);
        unsigned int state = 1;
        for (size_t i = 0; i < megabytes << 20; i += sizeof state) {
            state = state * 1664525 + 1013904223;
            memcpy(memory + i, &state, sizeof state);
        }
    }
    pthread_t thread;
    pthread_create(&thread, NULL, tick, NULL);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7000)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16))
        return 3;
    printf("listening\n");
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client >= 0 && pthread_create(&thread, NULL, serve, (void *)(long)client))
            close(client);
    }
}
