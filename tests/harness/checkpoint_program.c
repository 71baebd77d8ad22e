/* A program that checks itself ten times a second and prints a line for each round.

   It uses what a checkpoint has to hold: threads, a child with a pipe, a pair of unix sockets with
   queued data, a deleted file, a file with a position, shared memory, a System V segment, a
   periodic timerfd, an eventfd, an epoll, a lock and a TCP connection to itself (with the argument
   "tcp"). With the argument "refused" Landlock must refuse to write /etc/passwd. With "pod" it has
   no System V segment. The first failed check ends it with status 3. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { printf("FAILED %s\n", #what); fflush(stdout); _exit(3); } } while (0)

static volatile uint64_t beats[4];

static void *beat(void *index)
{
    for (;;) {
        beats[(intptr_t)index]++;
        usleep(20000);
    }
    return NULL;
}

static int has(char **argv, const char *name)
{
    while (*++argv)
        if (!strcmp(*argv, name))
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    (void)argc;
    setvbuf(stdout, NULL, _IOLBF, 0);
    pthread_t thread;
    for (intptr_t i = 0; i < 4; i++)
        CHECK(!pthread_create(&thread, NULL, beat, (void *)i));

    int to[2], from[2];
    CHECK(!pipe(to) && !pipe(from));
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        uint32_t value;
        while (read(to[0], &value, sizeof value) == sizeof value) {
            value = ~value;
            if (write(from[1], &value, sizeof value) != sizeof value)
                break;
        }
        _exit(0);
    }

    int pair[2];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    CHECK(write(pair[0], "queued", 6) == 6);

    int deleted = open("/tmp/deleted", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(deleted >= 0 && !unlink("/tmp/deleted"));
    int file = open("/tmp/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && !flock(file, LOCK_EX));

    uint32_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    int dev = open("/dev/shm/segment", O_RDWR | O_CREAT, 0600);
    CHECK(dev >= 0 && !ftruncate(dev, 4096));
    uint32_t *posix = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, dev, 0);
    CHECK(posix != MAP_FAILED);
    uint32_t plain = 0, *sysv = &plain;
    if (!has(argv, "pod"))
        sysv = shmat(shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600), NULL, 0);
    CHECK(sysv != (void *)-1);

    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec period = {{0, 100000000}, {0, 100000000}};
    CHECK(!timerfd_settime(timer, 0, &period, NULL));
    int event = eventfd(5, 0), epoll = epoll_create1(0);
    struct epoll_event ready = {EPOLLIN, {0}};
    CHECK(event >= 0 && epoll >= 0 && !epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &ready));

    int client = -1, server = -1;
    if (has(argv, "tcp")) {
        struct sockaddr_in address = {AF_INET, htons(7000), {htonl(INADDR_LOOPBACK)}};
        int listener = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(!bind(listener, (void *)&address, sizeof address) && !listen(listener, 1));
        client = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(!connect(client, (void *)&address, sizeof address));
        server = accept(listener, NULL, NULL);
        CHECK(server >= 0);
    }

    for (uint32_t round = 1;; round++) {
        uint64_t seen = beats[round % 4], ticks = 0;
        int number;
        do
            number = epoll_wait(epoll, &ready, 1, 3000);
        while (number < 0 && errno == EINTR); /* the kernel never restarts this call */
        CHECK(number == 1);
        CHECK(read(timer, &ticks, sizeof ticks) == sizeof ticks && ticks > 0);

        uint32_t value = round, answer = 0;
        CHECK(write(to[1], &value, sizeof value) == sizeof value);
        CHECK(read(from[0], &answer, sizeof answer) == sizeof answer && answer == ~round);

        char text[16] = "";
        CHECK(read(pair[1], text, 6) == 6 && !memcmp(text, "queued", 6));
        CHECK(write(pair[0], "queued", 6) == 6);

        CHECK(pwrite(deleted, &value, sizeof value, 0) == sizeof value);
        CHECK(pread(deleted, &answer, sizeof answer, 0) == sizeof answer && answer == round);
        CHECK(write(file, &value, sizeof value) == sizeof value);
        CHECK(lseek(file, 0, SEEK_CUR) == (off_t)(round * sizeof value));

        CHECK(*shared == round - 1 && *posix == round - 1 && *sysv == round - 1);
        *shared = *posix = *sysv = round;

        uint64_t count = 0;
        CHECK(read(event, &count, sizeof count) == sizeof count && count == 5);
        CHECK(write(event, &count, sizeof count) == sizeof count);
        if (has(argv, "refused")) {
            int secret = open("/etc/passwd", O_WRONLY);
            CHECK(secret < 0 && errno == EACCES);
        }
        if (client >= 0) {
            CHECK(write(client, &value, sizeof value) == sizeof value);
            CHECK(read(server, &answer, sizeof answer) == sizeof answer && answer == round);
        }
        CHECK(round < 3 || beats[round % 4] > seen || beats[(round + 1) % 4] > 0);
        printf("round %u\n", round);
    }
}
