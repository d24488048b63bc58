// A mapped file that shrinks: touching what is gone is SIGBUS, on whatever thread. The handler finds the file in the
// kernel's list of mappings, so it knows those of MLX and Python as well, says what happened and ends with status 2.
// It calls what POSIX allows in a handler: open, read, write, _exit. What is no file's fault goes where it would have
// gone.
#include "bus.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace toast {
namespace {

constexpr int FAILED = 2;  // as toast/errors.py
constexpr size_t LONGEST = 4096;

struct sigaction before;
std::atomic_flag telling = ATOMIC_FLAG_INIT;  // by the first thread; the buffers below are its own

// A file of /proc, a character after the other.
struct Text {
  int fd;
  char data[LONGEST];
  ssize_t at = 0, size = 0;

  explicit Text(const char* path) : fd(open(path, O_RDONLY | O_CLOEXEC)) {}
  ~Text() {
    if (fd >= 0) close(fd);
  }
  int next() {
    if (at == size) {
      size = fd < 0 ? 0 : read(fd, data, sizeof data);
      at = 0;
      if (size <= 0) return size = 0, '\0';
    }
    return (unsigned char)data[at++];
  }
  // A number of hexadecimal digits; the character after it is read, too.
  uintptr_t number() {
    uintptr_t value = 0;
    for (int c = next();; c = next()) {
      if (c >= '0' && c <= '9')
        value = value * 16 + (c - '0');
      else if (c >= 'a' && c <= 'f')
        value = value * 16 + (c - 'a' + 10);
      else
        return value;
    }
  }
};

struct Line {
  char text[2 * LONGEST];
  size_t size = 0;

  void add(char c) {
    if (size < sizeof text) text[size++] = c;
  }
  void add(const char* s) {
    while (*s) add(*s++);
  }
};

// Adds the path of the file that is mapped at an address. A line: START-END rights offset device inode   PATH
bool add_path(uintptr_t address, Line& line) {
  Text maps("/proc/self/maps");
  while (uintptr_t start = maps.number()) {
    bool here = maps.number() > address && start <= address;
    int c = maps.next();
    while (c && c != '\n' && c != '/') c = maps.next();  // no field before the path has a slash
    if (here && c != '/') return false;
    for (; c && c != '\n'; c = maps.next())
      if (here) line.add(c < ' ' || c == 127 ? '?' : (char)c);
    if (here) return true;
  }
  return false;
}

// Adds the process's name, which is the command's.
void add_name(Line& line) {
  Text name("/proc/self/comm");
  for (int c = name.next(); c && c != '\n'; c = name.next()) line.add((char)c);
}

void on_bus(int number, siginfo_t* info, void*) {
  int kept = errno;
  if (info->si_code == BUS_ADRERR) {
    while (telling.test_and_set()) pause();
    static Line line;
    line.size = 0;
    add_name(line);
    line.add(": ");
    if (add_path((uintptr_t)info->si_addr, line)) {
      line.add(" changed while it was used (run this again when it is whole)\n");
      if (write(2, line.text, line.size) < 0) _exit(FAILED);
      _exit(FAILED);
    }
    telling.clear();
  }
  sigaction(number, &before, nullptr);    // the access is tried again, and has the end that it would have had
  if (info->si_code <= 0) raise(number);  // somebody sent it
  errno = kept;
}

}  // namespace

void tell_of_shrunk_files() {
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = on_bus;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, &before) == 0;
  }();
  (void)installed;
}

}  // namespace toast
