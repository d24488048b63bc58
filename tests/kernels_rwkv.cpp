// RWKV-7's layers by the pool, without MLX or Python.
#include <deque>

#include "kernels_main.h"
#include "rwkv_work.h"

namespace {

// Two layers, and what they point into: matrices in 4 and 8 bits, and dense ones of a rank that no group divides.
struct Model {
  static constexpr int width = 64, heads = 4, D = 16, wide = 96;
  Random random;
  std::deque<std::vector<uint8_t>> codes;
  std::deque<std::vector<float>> all;
  RwkvLayers layers;

  const float* numbers(size_t n, float most = 1) {
    all.push_back(random.numbers(n));
    for (float& x : all.back()) x *= most / 2;
    return all.back().data();
  }
  Linear quantised(int N, int K, int bits = 4) {
    codes.emplace_back((size_t)N * K * bits / 8);
    for (uint8_t& c : codes.back()) c = random.next();
    Linear to;
    float unit = 1.f / (float)(1 << bits);
    to.quantized = {codes.back().data(), numbers(N * K / 32, unit), numbers(N * K / 32), Type::f32, N, K, 32, bits};
    return to;
  }
  Linear dense(int N, int K) {
    Linear to;
    to.dense = {numbers(N * K, 0.5f), Type::f32, 1, K, K, N};
    to.bias = numbers(N);
    return to;
  }
  Norm norm(float eps) { return {numbers(width), numbers(width), eps}; }

  explicit Model(bool first = true) {
    for (; layers.size() < 2; first = false) {
      using R = RwkvLayer;
      auto l = std::make_shared<R>();
      l->heads = heads, l->before = norm(1e-5f), l->after = norm(1e-5f), l->of_heads = norm(64e-5f);
      l->time_mix = numbers(R::SHIFTED * width), l->channel_mix = numbers(width);
      l->k_k = numbers(width), l->k_a = numbers(width), l->r_k = numbers(width);
      for (auto w : {&l->r, &l->v, &l->o}) *w = quantised(width, width);
      l->k = quantised(width, width, 8), l->key = quantised(wide, width), l->value = quantised(width, wide);
      for (int i = 0; i < R::RANKS - first; i++) {
        bool whole = i == R::GATE;
        l->down[i] = whole ? quantised(32, width) : dense(8, width);
        l->up[i] = whole ? quantised(width, 32, 8) : dense(width, 8);
      }
      layers.push_back(l);
    }
  }
};

// What the layers keep of `texts` texts.
struct Kept {
  std::vector<std::vector<float>> rows, states;
  explicit Kept(size_t texts)
      : rows(4, std::vector<float>(texts * Model::width)),
        states(2, std::vector<float>(texts * Model::width * Model::D)) {}

  // x[texts, T, width]
  std::vector<float> run(const Model& model, std::vector<float> x, size_t texts) {
    size_t T = x.size() / texts / Model::width;
    auto after = rows;
    std::vector<RwkvState> at;
    for (size_t i = 0; i < 2; i++)
      at.push_back({{rows[2 * i].data(), rows[2 * i + 1].data()},
                    {after[2 * i].data(), after[2 * i + 1].data()},
                    states[i].data()});
    Memory memory(run_bytes(model.layers, texts * T));
    toast::run(model.layers, x.data(), texts, T, at, memory.data);
    rows = after;
    return x;
  }
};

}  // namespace

// Two texts in one call, and each of them alone in pieces: the same bits.
void check_rwkv_layers() {
  Model model;
  constexpr size_t T = 70, width = Model::width;
  auto x = model.random.numbers(2 * T * width);
  Kept both(2);
  auto whole = both.run(model, x, 2);
  for (float y : whole) expect(std::isfinite(y), "RWKV-7");
  for (size_t text : {0, 1}) {
    Kept one(1);
    std::vector<float> pieces;
    for (auto [first, end] : {std::pair(0, 1), {1, 67}, {67, 69}, {69, 70}}) {
      auto at = x.begin() + text * T * width;
      for (float y : one.run(model, {at + first * width, at + end * width}, 1)) pieces.push_back(y);
    }
    auto mine = whole.begin() + text * T * width;
    expect(same(pieces, {mine, mine + T * width}), "RWKV-7 in pieces", (int)text);
    for (int i = 0; i < 4; i++) {
      auto kept = both.rows[i].begin() + text * width;
      expect(same(one.rows[i], {kept, kept + width}), "RWKV-7's rows in pieces", (int)text, i);
    }
    for (int i = 0; i < 2; i++) {
      auto kept = both.states[i].begin() + text * width * Model::D;
      expect(same(one.states[i], {kept, kept + width * Model::D}), "RWKV-7's states in pieces", (int)text, i);
    }
  }
}
