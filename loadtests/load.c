/* Asks as fast as it is answered, or at a steady rate, and checks every answer.
 *
 *     load PROTOCOL CONNECTIONS DEPTH RATE SECONDS QUESTIONS TARGET
 *
 * PROTOCOL    lines, http, icap or spop: where an answer ends, and what it says
 * DEPTH       questions in flight on each connection
 * RATE        questions a second over all connections, each timed from when it was due; 0: a closed loop
 * QUESTIONS   file of records: length, number of blocks expected (2^32 - 1: any), bytes; the integers of 4 bytes in the
 *             machine's order. The first record is what a connection says first and is answered once; it may be empty.
 * TARGET      a port of 127.0.0.1, or two descriptors of this process: to the helper, from the helper ("5,6")
 *
 * SIGUSR1, SIGUSR2 and SIGHUP say in which of three phases answers are counted from now on; it begins in the first. SIGTERM
 * ends it before its time. On standard output: questions, seconds, wrong and lost answers, and for each phase answers and latencies
 * in nanoseconds, as JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ANY UINT32_MAX
#define OUT_BYTES (256 * 1024)
#define IN_BYTES (4 * 1024 * 1024)
#define PATIENCE 5000000000ull /* for the last answers, in nanoseconds */
#define SUB 128                /* buckets an octave: under 1 % */

struct question { const char *bytes; uint32_t length, blocks; };
struct flight { uint64_t since; uint32_t blocks; };
struct connection {
    int to, from;
    size_t next, first, flying, out, sent, in;
    struct flight *flights;
    char *output, *input;
};

static struct question *questions, preamble;
static size_t question_count, depth;
static uint64_t buckets[3][64 * SUB], counts[3], longest[3], missed, excess, lost, asked;
static volatile sig_atomic_t phase, ended;
static long (*parse)(const char *, size_t, uint32_t *);

static void fail(const char *what) { perror(what); exit(1); }

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void on_phase(int number) { phase = number == SIGUSR1 ? 0 : number == SIGUSR2 ? 1 : 2; }

static void on_end(int number) { ended = number; }

/* Each parser: bytes of the first answer, 0 if it is not whole, -1 if it is none; and the blocks that it tells of. */

static long parse_lines(const char *at, size_t length, uint32_t *blocks) {
    const char *end = memchr(at, '\n', length);
    if (end == NULL) return 0;
    *blocks = at[0] == 'O'; /* OK … */
    return end - at + 1;
}

static long parse_spop(const char *at, size_t length, uint32_t *blocks) {
    uint32_t size;
    if (length < 4) return 0;
    memcpy(&size, at, 4);
    size = ntohl(size);
    if (length < 4 + (size_t)size) return 0;
    if ((unsigned char)at[4] != 103 && (unsigned char)at[4] != 101) return -1;
    *blocks = memmem(at + 4, size, "block", 5) != NULL;
    return 4 + (long)size;
}

static const char *head_end(const char *at, size_t length) {
    const char *end = memmem(at, length, "\r\n\r\n", 4);
    return end == NULL ? NULL : end + 4;
}

static long number_after(const char *at, const char *end, const char *name) {
    for (size_t size = strlen(name); at + size < end; at++)
        if (strncasecmp(at, name, size) == 0) return strtol(at + size, NULL, 10);
    return -1;
}

static long parse_http(const char *at, size_t length, uint32_t *blocks) {
    const char *body = head_end(at, length);
    if (body == NULL) return 0;
    long size = number_after(at, body, "\r\ncontent-length:");
    if (size < 0) size = 0;
    if (length - (size_t)(body - at) < (size_t)size) return 0;
    int status = atoi(at + 9);
    *blocks = status == 403;
    if (status == 200) {
        static const char word[] = "\"verdict\":\"block\"";
        const char *found = body, *end = body + size;
        while ((found = memmem(found, (size_t)(end - found), word, sizeof word - 1)) != NULL) ++*blocks, ++found;
    } else if (status != 204 && status != 403) return -1;
    return body - at + size;
}

static long parse_icap(const char *at, size_t length, uint32_t *blocks) {
    const char *rest = head_end(at, length), *end = at + length;
    if (rest == NULL) return 0;
    int status = atoi(at + 9);
    *blocks = status == 200;
    if (status == 204) return rest - at;
    if (status != 200) return -1;
    long head = number_after(at, rest, "res-body="), none = number_after(at, rest, "null-body=");
    if (head < 0) return end - rest < none ? 0 : rest - at + none;
    if (end - rest < head) return 0;
    for (const char *chunk = rest + head;;) {
        const char *line = memmem(chunk, (size_t)(end - chunk), "\r\n", 2);
        if (line == NULL) return 0;
        long size = strtol(chunk, NULL, 16);
        if (end - line < size + 4) return 0;
        chunk = line + 2 + size + 2;
        if (size == 0) return chunk - at;
    }
}

static void read_questions(const char *path) {
    int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) fail(path);
    const char *at = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (at == MAP_FAILED) fail(path);
    size_t room = 0, count = 0;
    struct question *all = NULL;
    for (const char *end = at + status.st_size; at < end; count++) {
        if (count == room) all = realloc(all, (room = room ? room * 2 : 1024) * sizeof *all);
        memcpy(&all[count].length, at, 4);
        memcpy(&all[count].blocks, at + 4, 4);
        all[count].bytes = at + 8;
        at += 8 + all[count].length;
    }
    preamble = all[0], questions = all + 1, question_count = count - 1;
}

static void note(uint64_t nanoseconds) {
    int which = phase, octave = 63 - __builtin_clzll(nanoseconds | SUB);
    buckets[which][(size_t)octave * SUB + ((nanoseconds >> (octave - 7)) & (SUB - 1))]++;
    counts[which]++;
    if (nanoseconds > longest[which]) longest[which] = nanoseconds;
}

static uint64_t percentile(int which, double share) {
    uint64_t wanted = (uint64_t)((double)counts[which] * share), seen = 0;
    for (size_t at = 0; at < 64 * SUB; at++)
        if ((seen += buckets[which][at]) > wanted) return (SUB + at % SUB) << (at / SUB - 7);
    return longest[which];
}

static void put(struct connection *one, uint64_t since) {
    struct question *question = &questions[one->next];
    one->next = (one->next + 1) % question_count;
    memcpy(one->output + one->out, question->bytes, question->length);
    one->out += question->length;
    one->flights[(one->first + one->flying++) % depth] = (struct flight){since, question->blocks};
    asked++;
}

static int fits(struct connection *one) {
    return one->flying < depth && (one->out == 0 || one->out + questions[one->next].length <= OUT_BYTES);
}

static void refill(struct connection *one) {
    /* As a busy peer does: not a question for each answer, but a batch once half of them are answered. */
    if (one->out != 0 || one->flying > depth / 2) return;
    uint64_t since = now();
    while (fits(one)) put(one, since);
}

static void close_connection(struct connection *one) {
    lost += one->flying;
    one->flying = one->out = 0;
    close(one->from);
    if (one->to != one->from) close(one->to);
    one->from = one->to = -1;
}

static void flush(struct connection *one) {
    while (one->out > one->sent) {
        ssize_t done = write(one->to, one->output + one->sent, one->out - one->sent);
        if (done < 0 && errno == EAGAIN) return;
        if (done < 0) { close_connection(one); return; }
        one->sent += (size_t)done;
    }
    one->out = one->sent = 0;
}

static void take(struct connection *one) {
    ssize_t done = read(one->from, one->input + one->in, IN_BYTES - one->in);
    if (done < 0 && errno == EAGAIN) return;
    if (done <= 0) { close_connection(one); return; }
    one->in += (size_t)done;
    size_t at = 0;
    uint64_t then = now();
    while (one->flying > 0) {
        uint32_t blocks = 0;
        long length = parse(one->input + at, one->in - at, &blocks);
        if (length == 0) break;
        struct flight *flight = &one->flights[one->first];
        if (length < 0) { close_connection(one); return; }
        if (flight->blocks != ANY && blocks < flight->blocks) missed++;
        if (flight->blocks != ANY && blocks > flight->blocks) excess++;
        note(then - flight->since);
        one->first = (one->first + 1) % depth;
        one->flying--;
        at += (size_t)length;
    }
    if (one->flying == 0 && at < one->in) { excess++; at = one->in; } /* an answer that nobody asked for */
    memmove(one->input, one->input + at, one->in - at);
    one->in -= at;
}

static void open_connection(struct connection *one, const char *target) {
    if (sscanf(target, "%d,%d", &one->to, &one->from) != 2) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(target))};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        one->to = one->from = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(one->to, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
        setsockopt(one->to, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    }
    one->output = malloc(OUT_BYTES + (1 << 20));
    one->input = mmap(NULL, IN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    one->flights = calloc(depth, sizeof *one->flights);
    if (preamble.length > 0) {
        uint32_t blocks;
        size_t have = 0;
        if (write(one->to, preamble.bytes, preamble.length) != (ssize_t)preamble.length) fail("preamble");
        while (parse(one->input, have, &blocks) == 0) {
            ssize_t done = read(one->from, one->input + have, IN_BYTES - have);
            if (done <= 0) fail("preamble");
            have += (size_t)done;
        }
    }
    fcntl(one->to, F_SETFL, O_NONBLOCK);
    fcntl(one->from, F_SETFL, O_NONBLOCK);
}

static void ask(struct connection *all, size_t connections, double rate, double seconds) {
    int poll = epoll_create1(0);
    struct epoll_event events[256];
    for (size_t at = 0; at < connections; at++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[at]};
        epoll_ctl(poll, EPOLL_CTL_ADD, all[at].from, &event);
        if (all[at].to == all[at].from) event.events |= EPOLLOUT | EPOLLET, epoll_ctl(poll, EPOLL_CTL_MOD, all[at].from, &event);
        else event.events = EPOLLOUT | EPOLLET, epoll_ctl(poll, EPOLL_CTL_ADD, all[at].to, &event);
    }
    uint64_t begin = now(), until = begin + (uint64_t)(seconds * 1e9), turn = 0, issued = 0;
    for (;;) {
        uint64_t present = now(), flying = 0;
        if (ended && present < until) until = present;
        if (present < until && rate == 0) {
            for (size_t at = 0; at < connections; at++)
                if (all[at].from >= 0) refill(&all[at]), flush(&all[at]);
        } else if (present < until) {
            for (size_t tried = 0; tried < connections; turn++) {
                uint64_t due = begin + (uint64_t)((double)issued / rate * 1e9);
                struct connection *one = &all[turn % connections];
                if (due > present) break;
                if (one->from < 0 || !fits(one)) { tried++; continue; }
                put(one, due), flush(one), issued++, tried = 0;
            }
        }
        for (size_t at = 0; at < connections; at++) flying += all[at].flying;
        if (present >= until && (flying == 0 || present > until + PATIENCE)) break;
        struct timespec wait = {0, 100000000};
        if (rate > 0 && present < until) {
            uint64_t due = begin + (uint64_t)((double)issued / rate * 1e9);
            wait.tv_nsec = due > present ? (long)(due - present) : 0;
            if (wait.tv_nsec == 0) wait.tv_nsec = 20000; /* every connection is busy */
            if (wait.tv_nsec > 100000000) wait.tv_nsec = 100000000;
        }
        int ready = epoll_pwait2(poll, events, 256, &wait, NULL);
        for (int at = 0; at < ready; at++) {
            struct connection *one = events[at].data.ptr;
            if (one->from >= 0 && events[at].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) take(one);
            if (one->from >= 0 && events[at].events & EPOLLOUT) flush(one);
        }
    }
    for (size_t at = 0; at < connections; at++) lost += all[at].flying;
    printf("{\"asked\": %lu, \"seconds\": %.6f, \"missed\": %lu, \"excess\": %lu, \"lost\": %lu, \"phases\": [", asked,
           (double)(now() - begin) / 1e9, missed, excess, lost);
    for (int which = 0; which < 3; which++)
        printf("%s{\"answers\": %lu, \"p50\": %lu, \"p99\": %lu, \"p999\": %lu, \"max\": %lu}", which ? ", " : "",
               counts[which], percentile(which, 0.5), percentile(which, 0.99), percentile(which, 0.999), longest[which]);
    printf("]}\n");
}

int main(int count, char **words) {
    if (count != 8) { fputs("usage: see the head of load.c\n", stderr); return 2; }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, on_phase);
    signal(SIGUSR2, on_phase);
    signal(SIGHUP, on_phase);
    signal(SIGTERM, on_end);
    prctl(PR_SET_TIMERSLACK, 1000); /* nanoseconds; what is due is asked then */
    parse = *words[1] == 'l' ? parse_lines : *words[1] == 'h' ? parse_http : *words[1] == 'i' ? parse_icap : parse_spop;
    size_t connections = strtoul(words[2], NULL, 10);
    depth = strtoul(words[3], NULL, 10);
    read_questions(words[6]);
    struct connection *all = calloc(connections, sizeof *all);
    for (size_t at = 0; at < connections; at++) {
        all[at].next = at * question_count / connections;
        open_connection(&all[at], words[7]);
    }
    ask(all, connections, atof(words[4]), atof(words[5]));
    return 0;
}
