// A pool of threads of our own: parallel(n, f) calls f(0..n-1), each once, in any order; and memory of each thread's
// own. Tasks are fixed by the caller, so who runs which never changes a bit of the result. Any thread may call any of
// this at any time: a second caller of parallel() waits until the first is done.
#pragma once
#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "tuning.h"

namespace toast {

// Threads in all, the caller included. 0: TOAST_THREADS was not given, as many as usable_cpus().
void set_threads(int n);
int threads();
// Those that would share parallel() out: 1 within one of its tasks, which runs its own parallel() alone.
int helpers();

void parallel_tasks(int n, void (*f)(void* context, int task), void* context);

template <class F>
void parallel(int n, F&& f) {
  if (n == 1) return f(0);
  parallel_tasks(n, [](void* c, int i) { (*static_cast<std::remove_reference_t<F>*>(c))(i); }, &f);
}

// f(first, count) over `rows` rows of n elements, in tasks.
template <class F>
void each_rows(size_t rows, size_t n, F f) {
  size_t step = std::max<size_t>(1, tuning::TASK_ELEMENTS / std::max<size_t>(n, 1));
  parallel((rows + step - 1) / step, [&](int i) { f(i * step, std::min(step, rows - i * step)); });
}

// Memory for as long as the scope lasts, 64-byte aligned, not cleared. Scopes of a thread nest; what one gives back,
// the next at that depth gets. Others may use it too while its owner waits for them.
class Scratch {
 public:
  explicit Scratch(size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  char* bytes() const { return data_; }
  float* floats() const { return (float*)data_; }

 private:
  char* data_;
};

}  // namespace toast
