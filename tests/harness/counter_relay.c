/* A server that answers each line with what its backend answers, over one connection to it.
 *
 * Usage: counter_relay ADDRESS PORT LISTEN. It accepts one client at a time. If the connection to
 * the backend fails, it exits with 1.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(const char *host, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    address.sin_addr.s_addr = inet_addr(host);
    for (int tries = 0; tries < 300; tries++, usleep(100000)) {
        int sock = socket(AF_INET, SOCK_STREAM, 0), one = 1;
        if (!connect(sock, (struct sockaddr *)&address, sizeof address)) {
            setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            return sock;
        }
        close(sock);
    }
    return -1;
}

static void pass(int from, int to, const char *what) {
    char text[64];
    size_t size = 0;
    while (size == 0 || text[size - 1] != '\n') {
        ssize_t got = read(from, text + size, sizeof text - size);
        if (got <= 0) {
            perror(what);
            exit(1);
        }
        size += (size_t)got;
    }
    if (write(to, text, size) != (ssize_t)size) {
        perror(what);
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    int backend = dial(argv[1], argv[2]), one = 1;
    if (backend < 0)
        return 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8))
        return 1;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        char first;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        while (recv(client, &first, 1, MSG_PEEK) == 1) {
            pass(client, backend, "client");
            pass(backend, client, "backend");
        }
        close(client);
    }
}
