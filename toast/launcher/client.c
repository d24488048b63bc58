// See client.h. What it says and when it runs here after all is toast/warm/client.py's; the tests hold both to the
// same.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  // struct ucred
#endif
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef O_PATH
#define O_PATH O_RDONLY
#endif

enum { FAILED = 2, SENDING = 2, ENDING = 2, SILENCE = 10, PATH = 103, LINE = 4096 };

static const char GREETING[] = "toast 1 " VERSION;

// ---- the socket

static int is_closed_to(const char* path, mode_t others) {
  struct stat st;
  return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & others);
}

// toast/warm/place.py has the same.
static int socket_path(const char* python, char path[PATH_MAX]) {
  char folder[PATH_MAX];
  const char* runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime && *runtime == '/' && strlen(runtime) < PATH && is_closed_to(runtime, 022))
    snprintf(folder, sizeof folder, "%s/toast", runtime);
  else
    snprintf(folder, sizeof folder, "/tmp/toast-%u", (unsigned)geteuid());
  if (!is_closed_to(folder, 077)) return 0;

  char named[PATH_MAX], where[PATH_MAX];
  snprintf(named, sizeof named, "%s", python);
  char* slash = strrchr(named, '/');
  if (slash) *slash = 0;
  if (!realpath(named, where)) return 0;
  uint64_t hash = 0xcbf29ce484222325;
  for (const char* c = VERSION; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3;
  hash *= 0x100000001b3;  // the NUL between them
  for (const char* c = where; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3;
  int n = snprintf(path, PATH_MAX, "%s%s%016llx", folder, folder[strlen(folder) - 1] == '/' ? "" : "/",
                   (unsigned long long)hash);
  return n <= PATH;
}

static int peer_is_us(int fd) {
#ifdef SO_PEERCRED
  struct ucred peer;
  socklen_t size = sizeof peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
#else
  uid_t uid;
  gid_t gid;
  return getpeereid(fd, &uid, &gid) == 0 && uid == geteuid();
#endif
}

static int connected(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -1;
  struct timeval limit = {SENDING, 0};
  memcpy(address.sun_path, path, strlen(path));
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return -1;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  fcntl(fd, F_SETFL, O_NONBLOCK);  // ours; a full queue of connections is no reason to wait
  if (fd < FD_SETSIZE && connect(fd, (struct sockaddr*)&address, sizeof address) == 0 && peer_is_us(fd)) {
    fcntl(fd, F_SETFL, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
#ifdef SO_NOSIGPIPE
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#endif
    return fd;
  }
  close(fd);
  return -1;
}

// ---- the conversation

// The descriptors go with the first byte.
static int send_request(int fd, const struct text* text, const int* numbers, int count) {
  char head[32], control[CMSG_SPACE(4 * sizeof(int))] = {0};
  int n = snprintf(head, sizeof head, "toast 1 %zu\n", text->size);
  struct iovec parts[] = {{head, n}, {text->data, text->size}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = control};
  message.msg_controllen = CMSG_SPACE(count * sizeof(int));
  struct cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(count * sizeof(int));
  memcpy(CMSG_DATA(rights), numbers, count * sizeof(int));
  ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
  if (sent < n) return 0;
  for (size_t at = sent - n; at < text->size; at += sent) {
    sent = send(fd, text->data + at, text->size - at, MSG_NOSIGNAL);
    if (sent <= 0) return 0;
  }
  return 1;
}

static volatile sig_atomic_t stopped;

static void stop(int number) { stopped = number; }

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

// Bytes that came within so many seconds; 0 at the end, or for silence. Signals come through meanwhile, and end it.
static ssize_t hear(int fd, char* data, size_t room, double seconds, const sigset_t* open) {
  double until = now() + seconds;
  while (!stopped) {
    double left = until - now();
    if (left < 0) left = 0;
    struct timespec limit = {(time_t)left, (long)((left - (time_t)left) * 1e9)};
    fd_set ready;
    FD_ZERO(&ready);
    FD_SET(fd, &ready);
    int n = pselect(fd + 1, &ready, NULL, NULL, &limit, open);
    if (n > 0) {
      ssize_t got = recv(fd, data, room, 0);
      return got < 0 ? 0 : got;
    }
    if (n == 0 || errno != EINTR) return 0;
  }
  return 0;
}

struct said {
  char data[LINE];
  size_t used;
  int greeted, begun, status;
};

// Takes the lines that are whole; 0 once it is decided what becomes of the command (`status`).
static int take_lines(struct said* said) {
  char* end;
  while ((end = memchr(said->data, '\n', said->used))) {
    *end = 0;
    const char* line = said->data;
    if (!said->greeted && strcmp(line, GREETING)) return 0;
    if (!strcmp(line, "begun")) said->begun = 1;
    if (!strncmp(line, "here ", 5) && !said->begun) return 0;
    if (!strncmp(line, "done ", 5)) {
      said->status = atoi(line + 5);
      return 0;
    }
    said->greeted = 1;
    said->used -= end + 1 - said->data;
    memmove(said->data, end + 1, said->used);
  }
  return said->used < sizeof said->data;
}

static int more(int fd, struct said* said, double seconds, const sigset_t* open) {
  ssize_t n = hear(fd, said->data + said->used, sizeof said->data - said->used, seconds, open);
  said->used += n;
  return n > 0 && take_lines(said);
}

// What was passed cannot be taken back, so nothing is before the other side has shown that it is awake.
static int greeted(int fd, struct said* said, const sigset_t* open) {
  while (!said->greeted && more(fd, said, SENDING, open)) continue;
  return said->greeted;
}

static int converse(int fd, struct said* said, const sigset_t* open) {
  while (more(fd, said, SILENCE, open)) continue;
  if (stopped) return RUN_HERE;
  // nothing more is taken from us once this is shut; what was said before that, counts
  shutdown(fd, SHUT_RDWR);
  ssize_t n = 1;
  while (said->status == RUN_HERE && n > 0 && said->used < sizeof said->data) {
    if ((n = recv(fd, said->data + said->used, sizeof said->data - said->used, 0)) <= 0) break;
    said->used += n;
    if (!take_lines(said)) break;
  }
  if (said->status != RUN_HERE || !said->begun) return said->status;
  dprintf(2, "%s: the warm process ended before the answer did (run it again, or with -p here)\n", function);
  return FAILED;
}

static void call_off(int fd) {
  char data[LINE];
  struct timeval limit = {ENDING, 0};
  double until = now() + ENDING;
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (send(fd, "!", 1, MSG_NOSIGNAL) == 1)
    while (recv(fd, data, sizeof data, 0) > 0 && now() < until) continue;
}

// ---- signals: while the job runs they come through at one place only

static const int STOPS[] = {SIGHUP, SIGINT, SIGTERM};
enum { N_STOPS = sizeof STOPS / sizeof *STOPS };

static int request(int fd, char** words, const int streams[3]) {
  int numbers[4] = {streams[0], streams[1], streams[2], open(".", O_PATH | O_DIRECTORY | O_CLOEXEC)};
  struct text text = {0};
  int sent = write_request(&text, words) && send_request(fd, &text, numbers, numbers[3] < 0 ? 3 : 4);
  free(text.data);
  if (numbers[3] >= 0) close(numbers[3]);
  return sent;
}

static int with_signals(int fd, char** words, const int streams[3], int held) {
  struct sigaction ours = {.sa_handler = stop}, before[N_STOPS];
  struct said said = {.status = RUN_HERE};
  sigset_t all, open, old;
  sigemptyset(&all);
  for (int i = 0; i < N_STOPS; i++) sigaddset(&all, STOPS[i]);
  sigprocmask(SIG_BLOCK, &all, &old);
  open = old;
  if (held) sigdelset(&open, SIGINT);
  for (int i = 0; i < N_STOPS; i++) {
    sigaction(STOPS[i], NULL, &before[i]);
    if (before[i].sa_handler == SIG_DFL) sigaction(STOPS[i], &ours, NULL);
  }
  int status = RUN_HERE;
  if (greeted(fd, &said, &open) && request(fd, words, streams)) status = converse(fd, &said, &open);
  for (int i = 0; i < N_STOPS; i++) sigaction(STOPS[i], &before[i], NULL);
  if (stopped) {
    sigprocmask(SIG_SETMASK, &open, NULL);  // a second signal does not wait for the cleaning
    call_off(fd);
    raise(stopped);
  }
  sigprocmask(SIG_SETMASK, &old, NULL);
  return status;
}

int ask_warm_process(char** words, const char* python, const int streams[3], int held) {
  char path[PATH_MAX];
  if (!socket_path(python, path) || access(path, F_OK) || !may_ask(words, isatty(streams[0]))) return RUN_HERE;
  int fd = connected(path);
  if (fd < 0) return RUN_HERE;
  int status = with_signals(fd, words, streams, held);
  close(fd);
  return status;
}
