// Who computes which rows or elements. The arithmetic is in norms.cpp, activations.cpp and convert.cpp.
#include "floats_work.h"

#include "threads.h"

namespace toast {
namespace {

// f(first byte, rows) for rows of n elements of `type`
template <class F>
void each_part(size_t rows, size_t n, Type type, F f) {
  size_t row = n * size_of(type);
  each_rows(rows, n, [&](size_t first, size_t count) { f(first * row, count); });
}

}  // namespace

void rms_norm_rows(const char* x, char* y, Type type, size_t rows, size_t n, const Norm& norm) {
  each_part(rows, n, type, [&](size_t at, size_t count) { kernels().rms_norm(x + at, y + at, type, count, n, norm); });
}

void layer_norm_rows(const char* x, char* y, Type type, size_t rows, size_t n, const Norm& norm) {
  each_part(rows, n, type,
            [&](size_t at, size_t count) { kernels().layer_norm(x + at, y + at, type, count, n, norm); });
}

void softmax_rows(const char* x, char* y, Type type, size_t rows, size_t n) {
  each_part(rows, n, type, [&](size_t at, size_t count) { kernels().softmax(x + at, y + at, type, count, n); });
}

void activate_all(Activation f, const char* x, const char* up, char* y, Type type, size_t n) {
  each_part(n, 1, type, [&](size_t at, size_t count) {
    kernels().activate(f, x + at, up ? up + at : nullptr, y + at, type, count);
  });
}

void add_all(const char* x, const char* y, char* sum, Type type, size_t n) {
  each_part(n, 1, type, [&](size_t at, size_t count) { kernels().add(x + at, y + at, sum + at, type, count); });
}

void widen_all(const char* x, Type type, float* y, size_t n) {
  each_rows(n, 1, [&](size_t i, size_t count) { kernels().to_f32(x + i * size_of(type), type, y + i, count); });
}

}  // namespace toast
