// The executable of each command: what has to be right before Python runs, then Python in its place (execve).
//
// Built once a command with -DCOMMAND="toast-embed" -DMODULE="embed.cli" -DFUNCTION="embed" (setup.py): its name here,
// and what it is in Python. It knows no options and reads no input.
//
// 1. SIGINT waits (it is blocked) until toast/start.py can die of it in silence; Python would print where it was.
// 2. Descriptors 0 to 2 are made such that Python starts: it refuses directories, and files that it opens would take
//    the place of a closed stream.
// 3. The Python of this installation is found: beside this file in a virtual environment, wherever that was moved to;
//    else in the first lines of PYTHON_NAME beside this file, where the installer wrote it.
//
// 4. A warm process runs the command, where there is one (client.c).
//
// What it hands on is the text of `python -P -c`, and nothing else; docs/design.md has it.
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

enum { FAILED = 2, ABOVE_STREAMS = 10, LINE = 2 * PATH_MAX };

const char function[] = FUNCTION;

static const char PYTHON_NAME[] = "toast-python";

// ---- one line of why, and the status

static void say(const char* what, const char* why) {
  char line[LINE];
  int n = snprintf(line, sizeof line, COMMAND ": cannot start: %s: %s (install toast again)\n", what, why);
  if (n >= (int)sizeof line) n = sizeof line - 1;
  if (n > 0 && write(2, line, n) < 0) return;  // there is nobody to tell
}

// ---- 1. SIGINT

static sigset_t interrupt(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  return set;
}

// Whether SIGINT is to be let through again: not where the caller had blocked it himself.
static int hold_interrupt(void) {
  sigset_t set = interrupt(), before;
  return sigprocmask(SIG_BLOCK, &set, &before) == 0 && !sigismember(&before, SIGINT);
}

static int give_up(const char* what, const char* why, int held) {
  sigset_t set = interrupt();
  if (held) sigprocmask(SIG_UNBLOCK, &set, NULL);
  say(what, why);
  return FAILED;
}

// ---- 2. descriptors

// A stream that was closed stays unusable: reading or writing it fails with EBADF.
static void fill(int fd) {
  int other = open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
  if (other >= 0 && other != fd) {
    dup2(other, fd);
    close(other);
  }
}

// Keeps 0 to 2 taken; moved[fd] is where a directory waits for toast/start.py to put it back, -1 for all else.
static void settle_streams(int moved[3]) {
  struct stat st;
  for (int fd = 0; fd < 3; fd++) {
    moved[fd] = -1;
    if (fcntl(fd, F_GETFD) < 0) {
      fill(fd);
    } else if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
      moved[fd] = fcntl(fd, F_DUPFD, ABOVE_STREAMS);
      close(fd);
      fill(fd);
    }
  }
}

// ---- 3. Python

// The folder of this file, links to it followed (pipx and uv make them), "" where it cannot be told.
static void own_folder(const char* name, char folder[PATH_MAX]) {
  char path[PATH_MAX] = "";
#ifdef __APPLE__
  uint32_t size = sizeof path;
  if (_NSGetExecutablePath(path, &size)) path[0] = 0;
#else
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  path[n < 0 ? 0 : n] = 0;
#endif
  if (!realpath(path[0] ? path : name, folder)) folder[0] = 0;
  char* slash = strrchr(folder, '/');
  if (slash) *slash = 0;
}

static int join(char path[PATH_MAX], const char* folder, const char* name) {
  int n = snprintf(path, PATH_MAX, "%s/%s", folder, name);
  return n > 0 && n < PATH_MAX;
}

// In a virtual environment Python is where this file is.
static int beside(const char* folder, char python[PATH_MAX]) {
  return join(python, folder, "../pyvenv.cfg") && access(python, R_OK) == 0 && join(python, folder, "python3") &&
         access(python, X_OK) == 0;
}

// The interpreter of a script as installers write it: "#!PYTHON", or where a path is too long or has spaces
// "#!/bin/sh" and a line that runs '''exec' "PYTHON" "$0" "$@".
static int interpreter(char* text, char python[PATH_MAX]) {
  static const char SHELL[] = "#!/bin/sh\n", EXEC[] = "'''exec' ";
  char *start = text + 2, *end = strchr(text, '\n');
  if (strncmp(text, "#!", 2) || !end) return 0;
  if (!strncmp(text, SHELL, sizeof SHELL - 1)) {
    start = text + sizeof SHELL - 1;
    if (strncmp(start, EXEC, sizeof EXEC - 1)) return 0;
    start += sizeof EXEC - 1;
    char quote = *start == '"' || *start == '\'' ? *start++ : ' ';
    end = strchr(start, quote);
  }
  if (!end || *start != '/' || end - start >= PATH_MAX || memchr(start, '\n', end - start)) return 0;
  memcpy(python, start, end - start);
  python[end - start] = 0;
  return 1;
}

static int noted(const char* folder, char python[PATH_MAX]) {
  char path[PATH_MAX], text[LINE + 1];
  int fd = join(path, folder, PYTHON_NAME) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, LINE);
  close(fd);
  text[n < 0 ? 0 : n] = 0;
  return interpreter(text, python);
}

// What Python runs: toast.start puts the streams back and lets SIGINT through, then the command begins.
static void code(char* text, size_t size, int held, const int moved[3]) {
  snprintf(text, size, "from toast.start import resume; resume('%s', %s, (%d, %d, %d))\nfrom %s import %s; %s()",
           COMMAND, held ? "True" : "False", moved[0], moved[1], moved[2], MODULE, FUNCTION, FUNCTION);
}

int main(int argc, char** argv) {
  int held = hold_interrupt(), moved[3];
  settle_streams(moved);

  char folder[PATH_MAX], python[PATH_MAX], text[512];
  own_folder(argc ? argv[0] : "", folder);
  if (beside(folder, python))
    unsetenv("PYTHONHOME");  // another Python's: it would leave the environment out
  else if (!noted(folder, python))
    return give_up(PYTHON_NAME, "it names no Python", held);

  int streams[3], status;
  for (int fd = 0; fd < 3; fd++) streams[fd] = moved[fd] < 0 ? fd : moved[fd];
  if ((status = ask_warm_process(argv + (argc > 0), python, streams, held)) != RUN_HERE) return status;
  code(text, sizeof text, held, moved);

  // -P: nothing is imported from the working directory
  char** words = calloc(argc + 5, sizeof *words);
  if (!words) return give_up(python, strerror(errno), held);
  char* first[] = {python, "-P", "-c", text};
  memcpy(words, first, sizeof first);
  if (argc > 1) memcpy(words + 4, argv + 1, (argc - 1) * sizeof *words);
  execv(python, words);
  return give_up(python, strerror(errno), held);
}
