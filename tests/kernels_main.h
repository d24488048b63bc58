// What the checks of the kernels share: counting failures, random numbers, memory, problems of quantised products.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels.h"

using namespace toast;

inline std::atomic<int> failures{0};
inline const char* variant = "";

inline void expect(bool ok, const char* what, int a = 0, int b = 0, int c = 0) {
  if (ok) return;
  failures++;
  std::printf("%s: %s (%d, %d, %d)\n", variant, what, a, b, c);
}

struct Random {
  uint64_t state = 1;
  uint32_t next() { return (state = state * 6364136223846793005u + 1442695040888963407u) >> 33; }
  float number() { return (float)(next() % 20001) / 5000 - 2; }
  std::vector<float> numbers(size_t n) {
    std::vector<float> x(n);
    for (float& v : x) v = number();
    return x;
  }
};

inline bool close(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  for (size_t i = 0; i < a.size(); i++)
    if (!(std::fabs(a[i] - b[i]) <= tolerance * std::fmax(1, std::fabs(b[i])))) return false;
  return true;
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(T));
}

struct Quantized {
  std::vector<Block> blocks;
  std::vector<float> sum, unit;
  std::vector<Outlier> outliers;
  std::vector<int> count;
  QuantRows rows;
  Quantized(const Kernels& k, const std::vector<float>& x, int M, int K, int group, int bits)
      : blocks(M * K / ACTIVATION_GROUP), sum(M * K / group), unit(M), outliers(blocks.size()) {
    std::vector<float> scratch(K / ACTIVATION_GROUP);
    for (int m = 0; m < M; m++) {
      size_t first = m * K / ACTIVATION_GROUP;
      QuantRow row{&unit[m], &blocks[first], &sum[m * K / group], &outliers[first], K, group, bits};
      count.push_back(k.quantize_row(&x[m * K], Type::f32, row, scratch.data()));
      expect(count[m] >= 0, "finite");
    }
    rows = {unit.data(), blocks.data(), sum.data(), outliers.data(), count.data(), K, group};
  }
  bool operator==(const Quantized& o) const {
    for (size_t m = 0; m < count.size(); m++)
      for (int i = 0; i < count[m]; i++) {
        size_t at = m * rows.K / ACTIVATION_GROUP + i;
        if (outliers[at].k != o.outliers[at].k || outliers[at].x != o.outliers[at].x) return false;
      }
    return same(blocks, o.blocks) && same(sum, o.sum) && same(unit, o.unit) && same(count, o.count);
  }
};

// Exactly as many bytes, aligned: the sanitizer sees what is beyond.
struct Memory {
  void* p = nullptr;
  char* data;
  explicit Memory(size_t bytes) {
    expect(!posix_memalign(&p, 64, std::max<size_t>(bytes, 1)), "memory");
    data = (char*)p;
  }
  ~Memory() { std::free(p); }
  Memory(const Memory&) = delete;
};

struct Form {
  int M, N, K, group, bits;
  bool whole;      // whole numbers: sums are exact
  int most = 255;  // the largest code
};

// Weights, rows of x and what their product needs.
struct Problem {
  Form f;
  std::vector<float> x, scales, biases, bias, residual;
  std::vector<uint8_t> w;
  std::vector<int> order;
  QuantWeights weights;

  // Every third row of x is as large as sums of 16 and of 32 bits can hold, with and against a third of the codes: of
  // one sign over 64 k and just below a power of two, where scales are largest.
  explicit Problem(const Form& form, int seed = 1) : f(form), w((size_t)f.N * f.K * f.bits / 8), order(f.M) {
    Random random{(uint64_t)seed};
    x = random.numbers(f.M * f.K), scales = random.numbers(f.N * f.K / f.group), biases = random.numbers(scales.size());
    if (f.whole) {
      for (size_t i = 0; i < x.size(); i++) x[i] = i % 32 ? (float)(random.next() % 117) - 58 : 127;
      for (float& s : scales) s = 1;
      for (float& b : biases) b = 0;
    } else {
      for (size_t i = 7; i < x.size(); i += 61) x[i] *= 50;  // outliers
    }
    for (uint8_t& b : w) b = random.next() & f.most;
    for (int i = 0; i < f.K && !f.whole; i++) set_extremes(i, i / 64 % 2);
    for (int m = 0; m < f.M; m++) order[m] = m;
    bias = random.numbers(f.N), residual = random.numbers(f.M * f.N);
    weights = {w.data(), scales.data(), biases.data(), Type::f32, f.N, f.K, f.group, f.bits};
  }
  Problem(const Problem&) = delete;

  void set_extremes(int k, int side) {
    for (int m = 1; m < f.M; m += 3) x[m * f.K + k] = side ? 1.9999f : -1.9999f;
    for (int n = 0; n < f.N && f.bits == 8; n++)
      if (n % 3) w[n * f.K + k] = side == n % 3 - 1 ? f.most : 0;
  }

  // Rows [m, m + M) and columns [n0, n1) to y[.., N].
  void run(const Kernels& k, const Quantized& q, int m, int M, int n0, int n1, std::vector<float>& y) const {
    Activation f = this->f.whole ? Activation::none : Activation::gelu;
    Output out{y.data(), Type::f32, {residual.data(), (size_t)this->f.N, 1, 1, bias.data(), f}};
    Memory scratch(k.quantized_scratch(weights, M));
    k.quantized_matmul({weights, q.rows, &order[m], &order[m], M, n0, n1, out}, scratch.data);
  }
};

// kernels_work.cpp
void check_layers(Type kv_type, int shared);
void check_threads();

// kernels_rwkv.cpp
void check_rwkv_layers();
