// A pool of threads of our own: parallel(n, f) calls f(0..n-1), each once, in any order.
// Tasks are fixed by the caller, so who runs which never changes a bit of the result.
#pragma once
#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace toast {

// Threads in all, the caller included. 0: TOAST_THREADS was not given, use the CPU affinity.
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

constexpr size_t kPiece = 1 << 14;  // elements worth waking a thread for

// f(first, count) over `rows` rows of n elements, in pieces.
template <class F>
void each_rows(size_t rows, size_t n, F f) {
  size_t step = std::max<size_t>(1, kPiece / std::max<size_t>(n, 1));
  parallel((rows + step - 1) / step, [&](int i) { f(i * step, std::min(step, rows - i * step)); });
}

// This thread's scratch memory number `slot` (0-2: the kernels' and what calls one of them, 3-6: encoder_op.cpp's),
// 64-byte aligned, at least `bytes`; kept and reused.
void* scratch(int slot, size_t bytes);

}  // namespace toast
