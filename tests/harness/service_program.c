/* The program of a service in a container: it accepts connections on the sockets of LISTEN_FDS and
 * answers with the sockets' names, and sends the messages that its arguments state. */

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void notify(const char *text) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (path == NULL || sock < 0) exit(41);
    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    if (sendto(sock, text, strlen(text), 0, (struct sockaddr *)&address, sizeof(address)) < 0) exit(42);
    close(sock);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "wait") == 0) pause();
        if (strcmp(argv[i], "ping") == 0) for (int n = 0; n < 20; n++) { notify("WATCHDOG=1"); usleep(100000); }
        if (strncmp(argv[i], "exit=", 5) == 0) return atoi(argv[i] + 5);
        if (strchr(argv[i], '=') != NULL) notify(argv[i]);
        if (strcmp(argv[i], "serve") != 0) continue;
        const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
        if (fds == NULL || pid == NULL || atoi(pid) != getpid()) return 43;
        for (int fd = 3; fd < 3 + atoi(fds); fd++) {
            int client = accept(fd, NULL, NULL);
            char answer[200];
            if (client < 0) return 44;
            snprintf(answer, sizeof(answer), "%d of %s\n", fd - 3, getenv("LISTEN_FDNAMES"));
            if (write(client, answer, strlen(answer)) < 0) return 45;
            close(client);
        }
        if (close(3 + atoi(fds)) == 0) return 46; /* nothing else was inherited */
    }
    return 0;
}
