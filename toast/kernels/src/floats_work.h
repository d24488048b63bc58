// Norms, softmax, activations and conversions of raw memory, divided among the threads; everything of `type`.
// Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include "kernels.h"

namespace toast {

// x[rows, n] -> y[rows, n]
void rms_norm_rows(const char* x, char* y, Type type, size_t rows, size_t n, const Norm& norm);
void layer_norm_rows(const char* x, char* y, Type type, size_t rows, size_t n, const Norm& norm);
void softmax_rows(const char* x, char* y, Type type, size_t rows, size_t n);

// x[n] up[n] or null -> y[n] = f(x) up
void activate_all(Activation f, const char* x, const char* up, char* y, Type type, size_t n);
// x[n] y[n] -> x + y, which may be where x or y is
void add_all(const char* x, const char* y, char* sum, Type type, size_t n);
// x[n] of `type` -> y[n]
void widen_all(const char* x, Type type, float* y, size_t n);

}  // namespace toast
