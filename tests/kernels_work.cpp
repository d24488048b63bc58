// What divides the kernels' work among threads, without MLX or Python: decoder layers, the pool, scratch memory, and
// several callers at once.
#include <thread>

#include "kernels_main.h"
#include "layer_work.h"
#include "quantized_work.h"
#include "threads.h"

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

// Layers with caches for two texts, which take rows of both, one text after the other, to the end; the last of them a
// mixture of experts, one of which, `shared` wide, every row sees.
struct Decoder {
  static constexpr int width = 64, heads = 4, kv_heads = 2, D = 16, hidden = 96, capacity = 9, experts = 5;
  Random random;
  std::vector<Weights> all;
  std::vector<float> norms = random.numbers(2 * width), router = random.numbers((experts + 1) * width);
  Layers layers;
  explicit Decoder(int shared) {
    constexpr int kv_width = kv_heads * D;
    for (auto [N, K] : {std::pair(width, width),
                        {kv_width, width},
                        {kv_width, width},
                        {width, width},
                        {experts * hidden, width},
                        {experts * hidden, width},
                        {experts * width, hidden},
                        {shared, width},
                        {shared, width},
                        {width, shared}})
      all.emplace_back(random, N, K);
    all[4].w.N = all[5].w.N = hidden, all[6].w.N = width;  // the first one's
    Rope rope{D, false, 1, inverse_frequencies(10000, D / 2)};
    Norm before{norms.data(), nullptr, 1e-5f}, after{norms.data() + width, nullptr, 1e-5f};
    Layer l{all[0].w, all[1].w, all[2].w, all[3].w, all[4].w, all[5].w, all[6].w, before,
            after,    heads,    kv_heads, D,        0.25f,    rope,     Type::f32};
    Layer mixture = l;
    auto& e = mixture.experts;
    e.count = experts, e.used = 2, e.shares = Shares::normed;
    e.router.dense = {router.data(), Type::f32, 1, width, width, experts};
    e.shared = {all[7].w, all[8].w, all[9].w, {{}, {&router[experts * width], Type::f32, 1, width, width, 1}}};
    ExpertWeights* stacks[] = {&e.gate, &e.up, &e.down};
    for (int i = 0; i < 3; i++)
      *stacks[i] = {all[4 + i].w, std::shared_ptr<std::atomic<char>[]>(new std::atomic<char>[experts]())};
    layers = {std::make_shared<const Layer>(l), std::make_shared<const Layer>(mixture)};
  }
  // memory: keys and values of each layer in turn, of both texts; texts: whose each segment is
  std::vector<float> run(const std::vector<float>& x, const std::vector<int>& texts,
                         const std::vector<Segment>& segments, std::vector<std::vector<float>>& memory,
                         Type kv_type) const {
    RaggedBatch batch{segments, (int)(x.size() / width), true};
    auto buffers = [&](int i) {
      std::vector<KvBuffer> found;
      for (int text : texts) {
        char* data = (char*)memory[i].data() + text * kv_heads * capacity * D * size_of(kv_type);
        found.push_back({data, kv_type, kv_heads, capacity, D});
      }
      return found;
    };
    std::vector<LayerCache> caches{{{buffers(0), buffers(1)}, {}}, {{buffers(2), buffers(3)}, {}}};
    std::vector<float> states(batch.rows * states_width(*layers[0])), y(x.size());
    std::vector<char> work(run_layers_bytes(layers, batch.rows)), more(finish_layer_bytes(*layers[1], batch.rows));
    run_layers(layers, (const char*)x.data(), batch, caches, (char*)states.data(), work.data());
    finish_layer(*layers[1], (const char*)states.data(), batch, caches[1], (char*)y.data(), more.data());
    return y;
  }
};

// Two texts in one call, and cut into pieces of their own: the same bits. shared: as wide as the other experts, or not.
void check_layers(Type kv_type, int shared) {
  Decoder decoder(shared);
  constexpr int width = Decoder::width;
  auto x = decoder.random.numbers(12 * width);
  size_t size = 2 * Decoder::kv_heads * Decoder::capacity * Decoder::D * size_of(kv_type) / sizeof(float);
  std::vector<std::vector<float>> one(4, std::vector<float>(size)), other = one;
  auto whole = decoder.run(x, {1, 0}, {{0, 7, 0}, {7, 5, 0}}, one, kv_type);
  std::vector<float> pieces;
  for (auto [first, length, offset] : std::vector<Segment>{{0, 3, 0}, {3, 1, 3}, {4, 3, 4}, {7, 4, 0}, {11, 1, 4}}) {
    std::vector<float> some(x.begin() + first * width, x.begin() + (first + length) * width);
    for (float y : decoder.run(some, {first < 7}, {{0, length, offset}}, other, kv_type)) pieces.push_back(y);
  }
  expect(same(whole, pieces), "layers in pieces", (int)kv_type);
  for (int i = 0; i < 4; i++) expect(same(one[i], other[i]), "caches in pieces", (int)kv_type, i);
  for (float y : whole) expect(std::isfinite(y), "layers", (int)kv_type);
}

static void check_pool() {
  for (int n : {1, 2, 5}) {
    set_threads(n);
    for (int round = 0; round < 50; round++) {
      std::vector<int> seen(round);
      parallel(round, [&](int i) { seen[i]++; });
      for (int times : seen) expect(times == 1, "parallel", n, round, times);
    }
  }
}

static void check_scratch() {
  Scratch one(100);
  std::memset(one.bytes(), 1, 100);
  for (size_t bytes : {10, 100000, 10}) {
    Scratch two(bytes), three(50);
    std::memset(two.bytes(), 2, bytes);
    std::memset(three.bytes(), 3, 50);
    expect((size_t)two.bytes() % 64 == 0 && two.bytes()[bytes - 1] == 2, "scratch", bytes);
  }
  for (int i = 0; i < 100; i++) expect(one.bytes()[i] == 1, "scratch of the scope around", i);
}

// x[rows, K] . w by the pool, from int8 on.
static std::vector<float> project_all(const Problem& p) {
  std::vector<float> y(p.f.M * p.f.N);
  Memory memory(project_bytes(p.f.M, {&p.weights}));
  project((const char*)p.x.data(), Type::f32, p.f.M, memory.data, {{&p.weights, {y.data(), Type::f32, {}}}});
  return y;
}

// Callers of the pool at once, products and layers, while its size changes: each gets what it gets alone.
static void check_callers_at_once() {
  set_threads(3);
  Problem problems[] = {Problem({37, 200, 256, 32, 4, false}), Problem({23, 130, 384, 64, 8, false}, 2)};
  std::vector<float> expected[] = {project_all(problems[0]), project_all(problems[1])};
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int i : {0, 1, 0, 1})
    callers.emplace_back([&, i] {
      for (int round = 0; round < 40; round++) wrong += !same(project_all(problems[i]), expected[i]);
    });
  callers.emplace_back([] { check_layers(Type::f16, 96); });
  callers.emplace_back([] {
    for (int round = 0; round < 20; round++) choose("auto"), set_threads(1 + round % 4);
  });
  for (auto& caller : callers) caller.join();
  expect(!wrong, "callers at once", wrong);
}

void check_threads() {
  check_pool();
  check_scratch();
  choose("auto");
  check_callers_at_once();
}
