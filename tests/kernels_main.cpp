// The kernels without MLX or Python: every variant this CPU runs against `generic`, for cross-compiled
// and sanitized builds. Buffers are exactly as long as the prototypes say. Exit status 1 on a difference.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "layer_work.h"
#include "threads.h"

using namespace toast;

static int failures = 0;
static const char* variant = "";

static void expect(bool ok, const char* what, int a = 0, int b = 0, int c = 0) {
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

static bool close(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  for (size_t i = 0; i < a.size(); i++)
    if (!(std::fabs(a[i] - b[i]) <= tolerance * std::fmax(1, std::fabs(b[i])))) return false;
  return true;
}

template <class T>
static bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(T));
}

// Every 16-bit pattern, and back: bit for bit (a NaN may keep its payload or not).
static void check_conversions(const Kernels& k, const Kernels& g) {
  for (Type type : {Type::f16, Type::bf16}) {
    std::vector<uint16_t> halves(65536 + 5), back(halves.size()), expected(halves.size());
    for (size_t i = 0; i < halves.size(); i++) halves[i] = i;
    std::vector<float> ours(halves.size()), theirs(halves.size());
    k.to_f32(halves.data(), type, ours.data(), ours.size());
    g.to_f32(halves.data(), type, theirs.data(), ours.size());
    for (size_t i = 0; i < ours.size(); i++)
      expect(std::isnan(theirs[i]) ? std::isnan(ours[i]) : ours[i] == theirs[i], "to_f32", (int)type, i);
    Random random;
    for (float& v : theirs) v = random.number() * std::ldexp(1.f, (int)(random.next() % 60) - 40);
    k.from_f32(theirs.data(), back.data(), type, back.size());
    g.from_f32(theirs.data(), expected.data(), type, back.size());
    expect(same(back, expected), "from_f32", (int)type);
  }
}

struct Quantized {
  std::vector<Block> blocks;
  std::vector<float> sum, unit;
  std::vector<Outlier> outliers;
  std::vector<int> count;
  QuantRows rows;
  Quantized(const Kernels& k, const std::vector<float>& x, int M, int K, int group, int bits)
      : blocks(M * K / ACTIVATION_GROUP), sum(M * K / group), unit(M), outliers(blocks.size()) {
    for (int m = 0; m < M; m++) {
      size_t first = m * K / ACTIVATION_GROUP;
      count.push_back(k.quantize_row(&x[m * K], Type::f32, K, group, bits, &unit[m], &blocks[first],
                                     &sum[m * K / group], &outliers[first]));
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

// Codes up to `most`; every third row of x is as large as sums of 16 and of 32 bits can hold, with and against a third
// of the codes: of one sign over 64 k and just below a power of two, where scales are largest.
static void check_quantized(const Kernels& k, const Kernels& g, int M, int N, int K, int group, int bits, bool whole,
                            int most = 255) {
  Random random;
  auto x = random.numbers(M * K), scales = random.numbers(N * K / group), biases = random.numbers(N * K / group);
  if (whole) {
    for (size_t i = 0; i < x.size(); i++) x[i] = i % 32 ? (float)(random.next() % 117) - 58 : 127;
    for (float& s : scales) s = 1;
    for (float& b : biases) b = 0;
  } else {
    for (size_t i = 7; i < x.size(); i += 61) x[i] *= 50;  // outliers
  }
  std::vector<uint8_t> w((size_t)N * K * bits / 8);
  for (uint8_t& b : w) b = random.next() & most;
  for (int i = 0; i < K && !whole; i++) {
    int side = i / 64 % 2;
    for (int m = 1; m < M; m += 3) x[m * K + i] = side ? 1.9999f : -1.9999f;
    for (int n = 0; n < N && bits == 8; n++)
      if (n % 3) w[n * K + i] = side == n % 3 - 1 ? most : 0;
  }
  QuantWeights weights{w.data(), scales.data(), biases.data(), Type::f32, N, K, group, bits};
  Quantized ours(k, x, M, K, group, bits), theirs(g, x, M, K, group, bits);
  expect(ours == theirs, "quantize_row", K, group, bits);

  std::vector<int> order(M);
  for (int m = 0; m < M; m++) order[m] = m;
  auto bias = random.numbers(N), residual = random.numbers(M * N);
  Epilogue e{residual.data(), (size_t)N, 1, 1, bias.data(), whole ? Activation::none : Activation::gelu};
  std::vector<float> a(M * N), b(M * N), alone(M * N);
  k.quantized_matmul(weights, ours.rows, order.data(), order.data(), M, 0, N, e, a.data(), Type::f32);
  g.quantized_matmul(weights, theirs.rows, order.data(), order.data(), M, 0, N, e, b.data(), Type::f32);
  expect(whole ? same(a, b) : close(a, b, 1e-4f * std::sqrt((float)K)), whole ? "whole numbers" : "quantized_matmul", M,
         N, K);
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n += k.panel)
      k.quantized_matmul(weights, ours.rows, &order[m], &order[m], 1, n, std::min(N, n + k.panel), e, alone.data(),
                         Type::f32);
  expect(same(a, alone), "rows alone", M, N, K);
  char* memory = (char*)std::aligned_alloc(64, k.unpacked_bytes(weights) + 64);
  for (int n = 0; n < N; n += k.panel) k.unpack(weights, n, std::min(N, n + k.panel), memory);
  weights.unpacked = memory;
  k.quantized_matmul(weights, ours.rows, order.data(), order.data(), M, 0, N, e, b.data(), Type::f32);
  std::free(memory);
  expect(same(a, b), "unpacked once", M, N, K);
}

static void check_matmul(const Kernels& k, int M, int K, int N, bool turned) {
  Random random;
  auto a = random.numbers(M * K), b = random.numbers(K * N);
  Matrix matrix{b.data(), Type::f32, turned ? 1 : N, turned ? K : 1, K, N};
  std::vector<float> y(M * N), exact(M * N), alone(M * N);
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n++) {
      double sum = 0;
      for (int i = 0; i < K; i++) sum += (double)a[m * K + i] * b[turned ? n * K + i : i * N + n];
      exact[m * N + n] = sum;
    }
  k.matmul(a.data(), K, matrix, M, 0, N, {}, y.data(), Type::f32);
  expect(close(y, exact, 1e-5f * std::sqrt((float)K)), "matmul", M, K, N);
  for (int m = 0; m < M; m++) k.matmul(&a[m * K], K, matrix, 1, 0, N, {}, &alone[m * N], Type::f32);
  expect(same(y, alone), "matmul rows alone", M, K, N);
}

static void check_rows(const Kernels& k, const Kernels& g, size_t n) {
  Random random;
  auto x = random.numbers(3 * n), w = random.numbers(n), b = random.numbers(n);
  std::vector<float> ours(3 * n), theirs(3 * n);
  auto both = [&](const char* what, auto run) {
    run(k, ours.data());
    run(g, theirs.data());
    expect(close(ours, theirs, 1e-5f), what, n);
  };
  both("rms_norm", [&](const Kernels& t, float* y) { t.rms_norm(x.data(), w.data(), y, Type::f32, 3, n, 1e-5f); });
  both("layer_norm",
       [&](const Kernels& t, float* y) { t.layer_norm(x.data(), w.data(), b.data(), y, Type::f32, 3, n, 1e-5f); });
  both("softmax", [&](const Kernels& t, float* y) { t.softmax(x.data(), y, Type::f32, 3, n); });
  for (Activation f : {Activation::gelu, Activation::gelu_tanh, Activation::silu})
    both("activate", [&](const Kernels& t, float* y) { t.activate(f, x.data(), nullptr, y, Type::f32, 3 * n); });
}

static void check_rope(const Kernels& k, const Kernels& g, size_t half, bool traditional) {
  Random random;
  size_t dims = 2 * half, dim = dims + 3;
  auto x = random.numbers(dim);
  std::vector<float> inverse(half, 0.9f), cosine(half), sine(half), ours(dim), theirs(dim);
  for (float position : {0.f, 3.f, 70000.f}) {
    k.rope_angles(position, inverse.data(), cosine.data(), sine.data(), half);
    double angle = (double)(position * 0.9f);
    for (size_t i = 0; i < half; i++)
      expect(std::fabs(cosine[i] - std::cos(angle)) < 5e-7 && std::fabs(sine[i] - std::sin(angle)) < 5e-7, "angles",
             half);
    k.rope(x.data(), ours.data(), Type::f32, dim, dims, traditional, cosine.data(), sine.data());
    g.rope(x.data(), theirs.data(), Type::f32, dim, dims, traditional, cosine.data(), sine.data());
    expect(close(ours, theirs, 1e-6f), "rope", half, traditional);
  }
}

static void check_attention(const Kernels& k, const Kernels& g, size_t queries, size_t keys, size_t d, Mask mask) {
  Random random;
  size_t group = 3;
  auto q = random.numbers(group * queries * d), kv = random.numbers(keys * d), v = random.numbers(keys * d);
  auto additive = random.numbers(group * queries * keys);
  std::vector<float> ours(group * queries * d), theirs(ours.size());
  std::vector<uint16_t> narrow_k(kv.size()), narrow_v(v.size());
  for (auto [wide, narrow] : {std::pair(&kv, &narrow_k), {&v, &narrow_v}}) {
    g.from_f32(wide->data(), narrow->data(), Type::f16, wide->size());
    g.to_f32(narrow->data(), Type::f16, wide->data(), wide->size());
  }
  auto run = [&](const Kernels& t, std::vector<float>& y, Type kept) {
    const void *keys_at = kv.data(), *values_at = v.data();
    if (kept == Type::f16) keys_at = narrow_k.data(), values_at = narrow_v.data();
    Attention a{Type::f32,
                kept,
                mask,
                group,
                queries,
                keys,
                d,
                d,
                q.data(),
                keys_at,
                values_at,
                y.data(),
                (int64_t)(queries * d),
                (int64_t)d,
                (int64_t)d,
                (int64_t)d,
                (int64_t)(queries * d),
                (int64_t)d,
                0.3f,
                (int64_t)(keys - queries + 1),
                mask == Mask::additive ? additive.data() : nullptr,
                (int64_t)(queries * keys),
                (int64_t)keys,
                nullptr};
    std::vector<float> room(t.attention_scratch(a));
    t.attention(a, room.data());
  };
  run(k, ours, Type::f32);
  run(g, theirs, Type::f32);
  expect(close(ours, theirs, 1e-5f), "attention", queries, keys, d);
  run(k, theirs, Type::f16);
  expect(ours == theirs, "attention over the same keys and values as f16", queries, keys, d);
}

// 4-bit weights with what they point into.
struct Weights {
  std::vector<uint8_t> codes;
  std::vector<float> scales, biases;
  QuantWeights w;
  Weights(Random& random, int N, int K)
      : codes((size_t)N * K / 2), scales(random.numbers(N * K / 32)), biases(scales.size()) {
    for (uint8_t& c : codes) c = random.next();
    for (size_t i = 0; i < scales.size(); i++) scales[i] *= 0.02f, biases[i] = -7.5f * scales[i];
    w = {codes.data(), scales.data(), biases.data(), Type::f32, N, K, 32, 4};
  }
};

// Layers with caches for two texts, which take rows of both, one text after the other, to the end.
struct Decoder {
  static constexpr int width = 64, heads = 4, kv_heads = 2, D = 16, hidden = 96, capacity = 9;
  Random random;
  std::vector<Weights> all;
  std::vector<float> norms = random.numbers(2 * width);
  Layers layers;
  Decoder() {
    constexpr int kept = kv_heads * D;
    for (auto [N, K] : {std::pair(width, width),
                        {kept, width},
                        {kept, width},
                        {width, width},
                        {hidden, width},
                        {hidden, width},
                        {width, hidden}})
      all.emplace_back(random, N, K);
    Rope rope{D, false, 1, inverse_frequencies(10000, D / 2)};
    Layer l{all[0].w, all[1].w, all[2].w, all[3].w, all[4].w, all[5].w, all[6].w, norms.data(), norms.data() + width,
            1e-5f,    1e-5f,    heads,    kv_heads, D,        0.25f,    rope,     Type::f32};
    layers = {std::make_shared<const Layer>(l), std::make_shared<const Layer>(l)};
  }
  std::vector<float> run(const std::vector<float>& x, const Segments& segments, std::vector<std::vector<float>>& memory,
                         Type kept) const {
    int rows = x.size() / width;
    std::vector<Kept> caches;
    for (auto& m : memory) caches.push_back({(char*)m.data(), kept, kv_heads, capacity, D});
    std::vector<float> states(rows * halfway(*layers[0])), y(x.size());
    std::vector<char> room(std::max(run_layers_bytes(layers, rows), end_layer_bytes(*layers[1], rows)));
    run_layers(layers, (const char*)x.data(), rows, segments, true, caches, (char*)states.data(), room.data());
    end_layer(*layers[1], (const char*)states.data(), rows, segments, true, caches[2], caches[3], (char*)y.data(),
              room.data());
    return y;
  }
};

// Two texts in one call, and cut into pieces of their own: the same bits.
static void check_layers(Type kept) {
  Decoder decoder;
  constexpr int width = Decoder::width;
  auto x = decoder.random.numbers(12 * width);
  size_t size = 2 * Decoder::kv_heads * Decoder::capacity * Decoder::D * size_of(kept) / sizeof(float);
  std::vector<std::vector<float>> one(4, std::vector<float>(size)), other = one;
  auto whole = decoder.run(x, {{1, 0, 7, 0}, {0, 7, 5, 0}}, one, kept);
  std::vector<float> pieces;
  for (auto [row, first, length, offset] :
       Segments{{1, 0, 3, 0}, {1, 3, 1, 3}, {1, 4, 3, 4}, {0, 7, 4, 0}, {0, 11, 1, 4}}) {
    std::vector<float> some(x.begin() + first * width, x.begin() + (first + length) * width);
    for (float y : decoder.run(some, {{row, 0, length, offset}}, other, kept)) pieces.push_back(y);
  }
  expect(same(whole, pieces), "layers in pieces", (int)kept);
  for (int i = 0; i < 4; i++) expect(same(one[i], other[i]), "caches in pieces", (int)kept, i);
  for (float y : whole) expect(std::isfinite(y), "layers", (int)kept);
}

// Against the definition, bit by bit; at every alignment, and in two parts.
static void check_crc32(const Kernels& k) {
  expect(k.crc32(0, (const uint8_t*)"123456789", 9) == 0xCBF43926, "crc32 of its test vector");
  Random random;
  for (int n = 0; n <= 300; n++) {
    int offset = n % 17, half = random.next() % (n + 1);
    std::vector<uint8_t> room(offset + n);
    uint32_t crc = ~0u;
    for (int i = 0; i < n; i++) {
      crc ^= room[offset + i] = random.next();
      for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    const uint8_t* x = room.data() + offset;
    expect(k.crc32(0, x, n) == ~crc, "crc32", n, offset);
    expect(k.crc32(k.crc32(0, x, half), x + half, n - half) == ~crc, "crc32 of two parts", n, offset, half);
  }
}

static void check(const Kernels& k, const Kernels& g) {
  check_conversions(k, g);
  check_crc32(k);
  for (int bits : {4, 8})
    for (int group : {32, 64, 128})
      for (int M : {1, 3, 4, 7})
        for (int N : {1, 33, 64})
          for (int groups : {1, 3})
            for (bool whole : {true, false})
              for (int most : {255, 63}) check_quantized(k, g, M, N, groups * group, group, bits, whole, most);
  check_quantized(k, g, 5, 40, 2560, 32, 4, false);  // several chunks of k, and parts of them
  check_quantized(k, g, 5, 40, 1664, 128, 8, false);
  check_quantized(k, g, 3, 33, 800, 32, 8, false);
  for (int M : {1, 5, 9})
    for (int K : {1, 33, 600})
      for (int N : {1, 31, 50}) check_matmul(k, M, K, N, M == 5), check_matmul(k, M, K, N, M != 5);
  for (size_t n : {1, 7, 16, 33, 200}) check_rows(k, g, n);
  for (size_t half : {1, 5, 16, 33}) check_rope(k, g, half, true), check_rope(k, g, half, false);
  for (Mask mask : {Mask::none, Mask::causal, Mask::additive})
    for (size_t queries : {1, 5})
      for (size_t keys : {5, 70})
        for (size_t d : {32, 19}) check_attention(k, g, queries, keys, d, mask);
}

int main() {
  const Kernels* chosen = choose("generic");
  const Kernels generic = *chosen;
  for (const char* name : {"generic", "avx2", "avx512", "neon"}) {
    if (!(chosen = choose(name))) continue;
    const Kernels k = *chosen;
    variant = name;
    check(k, generic);
    for (Type kept : {Type::f32, Type::f16}) check_layers(kept);
    std::printf("%s: %s\n", name, failures ? "differs" : "ok");
  }
  for (int threads : {1, 2, 5}) {
    set_threads(threads);
    for (int round = 0; round < 50; round++) {
      std::vector<int> seen(round);
      parallel(round, [&](int i) { seen[i]++; });
      for (int n : seen) expect(n == 1, "parallel", threads, round, n);
    }
  }
  return failures > 0;
}
