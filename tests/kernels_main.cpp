// The kernels without MLX or Python: every variant this CPU runs against `generic`, for cross-compiled
// and sanitized builds. Buffers are exactly as long as the prototypes say. Exit status 1 on a difference.
#include "kernels_main.h"

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

static void check_quantized(const Kernels& k, const Kernels& g, const Form& f) {
  Problem p(f);
  Quantized ours(k, p.x, f.M, f.K, f.group, f.bits), theirs(g, p.x, f.M, f.K, f.group, f.bits);
  expect(ours == theirs, "quantize_row", f.K, f.group, f.bits);
  std::vector<float> a(f.M * f.N), b(a.size()), alone(a.size());
  p.run(k, ours, 0, f.M, 0, f.N, a);
  p.run(g, theirs, 0, f.M, 0, f.N, b);
  if (f.whole)
    expect(same(a, b), "whole numbers", f.M, f.N, f.K);
  else
    expect(close(a, b, 1e-4f * std::sqrt((float)f.K)), "quantized_matmul", f.M, f.N, f.K);
  int panel = k.quantized_panel;
  for (int m = 0; m < f.M; m++)
    for (int n = 0; n < f.N; n += panel) p.run(k, ours, m, 1, n, std::min(f.N, n + panel), alone);
  expect(same(a, alone), "rows alone", f.M, f.N, f.K);
  Memory unpacked(k.unpacked_bytes(p.weights));
  for (int n = 0; n < f.N; n += panel) k.unpack(p.weights, n, std::min(f.N, n + panel), unpacked.data);
  p.weights.unpacked = unpacked.data;
  p.run(k, ours, 0, f.M, 0, f.N, b);
  expect(same(a, b), "unpacked once", f.M, f.N, f.K);
}

// Biases that the scales tell, read and not.
static void check_centred(const Kernels& k, const Form& f) {
  Problem p(f);
  for (size_t i = 0; i < p.biases.size(); i++) p.biases[i] = middle(p.weights) * p.scales[i];
  Quantized x(k, p.x, f.M, f.K, f.group, f.bits);
  std::vector<float> a(f.M * f.N), b(a.size());
  p.run(k, x, 0, f.M, 0, f.N, a);
  p.weights.biases = nullptr;
  p.run(k, x, 0, f.M, 0, f.N, b);
  expect(same(a, b), "centred", f.M, f.N, f.bits);
}

static void check_matmul(const Kernels& k, int M, int K, int N, bool transposed) {
  Random random;
  auto a = random.numbers(M * K), b = random.numbers(K * N);
  Matrix matrix{b.data(), Type::f32, transposed ? 1 : N, transposed ? K : 1, K, N};
  std::vector<float> y(M * N), exact(M * N), alone(M * N);
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n++) {
      double sum = 0;
      for (int i = 0; i < K; i++) sum += (double)a[m * K + i] * b[transposed ? n * K + i : i * N + n];
      exact[m * N + n] = sum;
    }
  auto run = [&](int m, int rows, std::vector<float>& to) {
    Memory scratch(k.matmul_scratch(rows) * sizeof(float));
    Output out{&to[m * N], Type::f32, {}};
    k.matmul({&a[m * K], K, matrix, rows, 0, N, out}, (float*)scratch.data);
  };
  run(0, M, y);
  expect(close(y, exact, 1e-5f * std::sqrt((float)K)), "matmul", M, K, N);
  for (int m = 0; m < M; m++) run(m, 1, alone);
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
  Norm norm{w.data(), b.data(), 1e-5f};
  both("rms_norm", [&](const Kernels& t, float* y) { t.rms_norm(x.data(), y, Type::f32, 3, n, norm); });
  both("layer_norm", [&](const Kernels& t, float* y) { t.layer_norm(x.data(), y, Type::f32, 3, n, norm); });
  both("softmax", [&](const Kernels& t, float* y) { t.softmax(x.data(), y, Type::f32, 3, n); });
  for (Activation f : {Activation::gelu, Activation::gelu_tanh, Activation::silu, Activation::sigmoid, Activation::tanh,
                       Activation::relu2})
    both("activate", [&](const Kernels& t, float* y) { t.activate(f, x.data(), nullptr, y, Type::f32, 3 * n); });
  both("weighted_sum", [&](const Kernels& t, float* y) { t.weighted_sum(x.data(), x.data(), y, Type::f32, 3, n); });
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
    Angles angles{cosine.data(), sine.data(), dims, traditional};
    k.rope(x.data(), ours.data(), Type::f32, dim, angles);
    g.rope(x.data(), theirs.data(), Type::f32, dim, angles);
    expect(close(ours, theirs, 1e-6f), "rope", half, traditional);
  }
}

// A head's state in one call and step by step, by each of the three rules.
static void check_recurrence(const Kernels& k, const Kernels& g, size_t dk, size_t dv, bool g_alike) {
  Random random;
  size_t steps = 19;
  auto q = random.numbers(steps * dk), keys = random.numbers(steps * dk), a = random.numbers(steps * dk);
  auto b = random.numbers(steps * dk), decay = random.numbers(steps * dk), u = random.numbers(steps * dv);
  auto beta = random.numbers(steps), state = random.numbers(dk * dv);
  for (auto x : {&keys, &a, &b, &decay})
    for (float& v : *x) v /= 2 * std::sqrt((float)dk);
  for (int rule = 0; rule < 3; rule++) {
    auto run = [&](const Kernels& t, size_t at_once, std::vector<float>& y) {
      auto s = state;
      for (size_t i = 0; i < steps; i += at_once) {
        size_t n = std::min(at_once, steps - i);
        Recurrence r{n,
                     dk,
                     dv,
                     s.data(),
                     &q[i * dk],
                     &keys[i * dk],
                     &decay[i * (g_alike ? 1 : dk)],
                     &u[i * dv],
                     &beta[i],
                     rule == 2 ? &a[i * dk] : nullptr,
                     rule == 2 ? &b[i * dk] : nullptr,
                     &y[i * dv],
                     g_alike,
                     rule == 1,
                     0.5f};
        Memory scratch(t.recurrence_scratch(r) * sizeof(float));
        t.recurrence(r, (float*)scratch.data);
      }
      y.insert(y.end(), s.begin(), s.end());
    };
    std::vector<float> ours(steps * dv), theirs(steps * dv), parts(steps * dv);
    run(k, steps, ours), run(g, steps, theirs), run(k, 5, parts);
    expect(close(ours, theirs, 1e-4f), "recurrence", dk, dv, rule);
    expect(same(ours, parts), "recurrence in parts", dk, dv, rule);
  }
}

static void check_mixer(const Kernels& k, const Kernels& g, size_t n) {
  Random random;
  size_t rows = 3;
  auto weight = random.numbers(n), gate = random.numbers(rows * n);
  for (size_t taps = 1; taps <= MOST_TAPS; taps++) {
    auto x = random.numbers((rows + taps - 1) * n), w = random.numbers(n * taps);
    auto both = [&](const char* what, auto run) {
      std::vector<float> ours(rows * n), theirs(rows * n);
      run(k, ours.data()), run(g, theirs.data());
      expect(close(ours, theirs, 1e-5f), what, n, taps);
    };
    for (auto f : {Activation::silu, Activation::none})
      both("convolution", [&](const Kernels& t, float* y) {
        t.convolution({x.data(), y, Type::f32, w.data(), weight.data(), Type::f32, n, n, taps, rows, n, f});
      });
    both("unit_length", [&](const Kernels& t, float* y) { t.unit_length(x.data(), y, rows, n, 1e-6f, 3); });
    for (bool silu : {true, false})
      both("gated_norm", [&](const Kernels& t, float* y) {
        t.gated_norm({x.data(), gate.data(), weight.data(), y, Type::f32, Type::f32, n, n, rows, n, 1e-6f, silu});
      });
  }
}

static void check_rwkv(const Kernels& k, const Kernels& g, size_t n) {
  Random random;
  size_t rows = 3, row = n + 5;
  std::vector<std::vector<float>> in, of_head, made;
  for (int i = 0; i < 6; i++) in.push_back(random.numbers(rows * row));
  for (int i = 0; i < 3; i++) of_head.push_back(random.numbers(n));
  auto both = [&](const char* what, size_t size, auto run) {
    std::vector<float> ours(size), theirs(size);
    run(k, ours.data()), run(g, theirs.data());
    expect(close(ours, theirs, 1e-5f), what, n);
    made.push_back(theirs);
  };
  both("lerp", n, [&](const Kernels& t, float* y) { t.lerp(in[0].data(), in[1].data(), of_head[0].data(), y, n); });
  for (auto mix : {in[4].data(), (float*)nullptr})
    both("wkv_inputs", 5 * rows * n, [&](const Kernels& t, float* y) {
      float* to[5];
      for (size_t i = 0; i < 5; i++) to[i] = y + i * rows * n;
      t.wkv_inputs({rows, n, row, in[0].data(), in[1].data(), in[2].data(), in[3].data(), mix, in[5].data(),
                    of_head[0].data(), of_head[1].data(), to[0], to[1], to[2], to[3], to[4]});
    });
  auto part = [&](int i) { return made[1].data() + i * rows * n; };
  both("wkv_outputs", rows * row, [&](const Kernels& t, float* y) {
    t.wkv_outputs({rows, n, row, part(0), part(1), part(2), part(3), of_head[2].data(), in[0].data(), y});
  });
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
  auto run = [&](const Kernels& t, std::vector<float>& y, Type kv_type) {
    const void *keys_at = kv.data(), *values_at = v.data();
    if (kv_type == Type::f16) keys_at = narrow_k.data(), values_at = narrow_v.data();
    Attention a{Type::f32,
                kv_type,
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
    std::vector<float> scratch(t.attention_scratch(a));
    t.attention(a, scratch.data());
  };
  run(k, ours, Type::f32);
  run(g, theirs, Type::f32);
  expect(close(ours, theirs, 1e-5f), "attention", queries, keys, d);
  run(k, theirs, Type::f16);
  expect(ours == theirs, "attention over the same keys and values as f16", queries, keys, d);
}

// Against the definition, bit by bit; at every alignment, and in two parts.
static void check_crc32(const Kernels& k) {
  expect(k.crc32(0, (const uint8_t*)"123456789", 9) == 0xCBF43926, "crc32 of its test vector");
  Random random;
  for (int n = 0; n <= 300; n++) {
    int offset = n % 17, half = random.next() % (n + 1);
    std::vector<uint8_t> bytes(offset + n);
    uint32_t crc = ~0u;
    for (int i = 0; i < n; i++) {
      crc ^= bytes[offset + i] = random.next();
      for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    const uint8_t* x = bytes.data() + offset;
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
              for (int most : {255, 63}) check_quantized(k, g, {M, N, groups * group, group, bits, whole, most});
  check_quantized(k, g, {5, 40, 2560, 32, 4, false});  // several chunks of k, and parts of them
  check_quantized(k, g, {5, 40, 1664, 128, 8, false});
  check_quantized(k, g, {3, 33, 800, 32, 8, false});
  check_quantized(k, g, {5, 40, 8192, 32, 4, false});  // rows that share the first cache's sets
  check_quantized(k, g, {5, 72, 4096, 64, 8, false});
  for (auto kernels : {&k, &g})
    for (int bits : {4, 8})
      for (int M : {1, 7}) check_centred(*kernels, {M, 40, 800, 32, bits, false});
  for (int M : {1, 5, 9})
    for (int K : {1, 33, 600})
      for (int N : {1, 31, 50}) check_matmul(k, M, K, N, M == 5), check_matmul(k, M, K, N, M != 5);
  for (size_t n : {1, 7, 16, 33, 200}) check_rows(k, g, n), check_mixer(k, g, n), check_rwkv(k, g, n);
  for (size_t dk : {1, 24, 128})
    for (size_t dv : {1, 40, 128}) check_recurrence(k, g, dk, dv, true), check_recurrence(k, g, dk, dv, false);
  for (size_t half : {1, 5, 16, 33}) check_rope(k, g, half, true), check_rope(k, g, half, false);
  for (Mask mask : {Mask::none, Mask::causal, Mask::additive})
    for (size_t queries : {1, 5})
      for (size_t keys : {5, 70})
        for (size_t d : {32, 19}) check_attention(k, g, queries, keys, d, mask);
}

// A variant that forgot a kernel is refused.
static void check_completeness(const Kernels& k) {
  expect(is_complete(k), "a kernel is missing");
  for (size_t at = 0; at < sizeof(Kernels); at += sizeof(void*)) {
    Kernels holey = k;
    std::memset((char*)&holey + at, 0, sizeof(void*));
    expect(!is_complete(holey), "a table without an entry", at);
  }
}

int main() {
  const Kernels generic = *choose("generic");
  for (const char* name : {"generic", "avx2", "avx512", "neon"}) {
    const Kernels* chosen = choose(name);
    if (!chosen) continue;
    variant = name;
    check(*chosen, generic);
    check_completeness(*chosen);
    for (int shared : {96, 64}) check_layers(shared == 96 ? Type::f32 : Type::f16, shared);
    check_rwkv_layers();
    std::printf("%s: %s\n", name, failures ? "differs" : "ok");
  }
  check_threads();
  return failures > 0;
}
