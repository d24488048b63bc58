// Whether a warm process may be asked, and the request: six facts, the words, the environment, each ended by NUL.
// toast/warm/protocol.py has the same.
#include "client.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { LONGEST = 8 << 20 };

extern char** environ;

// ---- whether to ask

static int is_served(void) {
  static const char* const SERVED[] = {"toast", "tokenize", "embed", "index", "search", "rerank", "classify"};
  for (size_t i = 0; i < sizeof SERVED / sizeof *SERVED; i++)
    if (!strcmp(function, SERVED[i])) return 1;
  return 0;
}

static int is_special(const char* path) {
  struct stat st;
  return path && stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

// Whether a word may name what is this process's own: a descriptor, a FIFO, a device, or the terminal (-).
static int is_own(const char* word, int terminal) {
  size_t n = strlen(word);
  const char* equals = strchr(word, '=');
  return strstr(word, "/dev/") || strstr(word, "/proc/") || (terminal && n && word[n - 1] == '-') || is_special(word) ||
         is_special(equals ? equals + 1 : NULL) || is_special(*word == '@' ? word + 1 : NULL);
}

// Whether words say `-p here`, or may: -p here, -qp here, -phere. Who is taken at his word for nothing runs here.
static int asks_for_here(const char* word, const char* next) {
  size_t n = strlen(word);
  if (n < 2 || word[0] != '-' || word[1] == '-') return 0;
  return (word[n - 1] == 'p' && next && !strcmp(next, "here")) || (n > 5 && !strcmp(word + n - 5, "phere"));
}

int may_ask(char** words, int terminal) {
  const char* warm = getenv("TOAST_WARM");
  if (!is_served() || (warm && !strcmp(warm, "off"))) return 0;
  for (; *words; words++)
    if (is_own(*words, terminal) || asks_for_here(*words, words[1])) return 0;
  return 1;
}

// ---- the request

static int add(struct text* text, const char* word) {
  size_t n = strlen(word) + 1;
  if (text->size + n > LONGEST) return 0;
  if (text->size + n > text->room) {
    size_t room = 2 * (text->size + n);
    char* data = realloc(text->data, room);
    if (!data) return 0;
    text->data = data;
    text->room = room;
  }
  memcpy(text->data + text->size, word, n);
  text->size += n;
  return 1;
}

static int addf(struct text* text, const char* format, ...) {
  char word[256];
  va_list values;
  va_start(values, format);
  vsnprintf(word, sizeof word, format, values);
  va_end(values);
  return add(text, word);
}

static long long limit_of(int kind) {
  struct rlimit limit;
  return getrlimit(kind, &limit) == 0 ? (long long)limit.rlim_cur : -2;
}

static void identity(const char* path, char text[64]) {
  struct stat st;
  if (stat(path, &st) == 0)
    snprintf(text, 64, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
  else
    strcpy(text, "-");
}

int write_request(struct text* text, char** words) {
  mode_t mask = umask(077);
  umask(mask);
  char root[64], mounts[64];
  identity("/", root);
  identity("/proc/self/ns/mnt", mounts);
  int count = 0;
  while (words[count]) count++;
  int ok = add(text, VERSION) && add(text, function) && addf(text, "%o", (unsigned)mask) &&
           addf(text, "%lld,%lld,%lld,%lld", limit_of(RLIMIT_AS), limit_of(RLIMIT_CPU), limit_of(RLIMIT_DATA),
                limit_of(RLIMIT_FSIZE)) &&
           addf(text, "%s,%s", root, mounts) && addf(text, "%d", count);
  for (; ok && *words; words++) ok = add(text, *words);
  for (char** pair = environ; ok && *pair; pair++) ok = add(text, *pair);
  return ok;
}
