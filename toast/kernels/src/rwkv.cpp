// What stands around the recurrence of RWKV-7: the shift between a token and the one before, what the recurrence takes,
// the bonus and the gate after it. Float32; knows nothing of threads or arrays.
#include "activation.h"
#include "lanes.h"

namespace toast::TOAST_VARIANT {
namespace {

vf between(vf x, vf z, vf by) { return fma(z - x, by, x); }

void lerp(const float* x, const float* z, const float* by, float* y, size_t n) {
  vectors(n, [&](size_t i, int m) {
    store_some(y + i, between(load_some(x + i, m), load_some(z + i, m), load_some(by + i, m)), m);
  });
}

// A step; the key that is taken out of the state has unit length.
void inputs_of(const WkvInputs& w, size_t in, size_t out) {
  float *minus = w.minus + out, *plus = w.plus + out;
  vectors(w.n, [&](size_t i, int m) {
    auto at = [&](const float* x) { return load_some(x + in + i, m); };
    vf k = at(w.k), v = at(w.v), rate = sigmoid(at(w.a));
    store_some(w.decay + out + i, exp_below(set1(-0.606531f) * sigmoid(at(w.w))), m);
    store_some(w.key + out + i, between(k, k * rate, load_some(w.k_a + i, m)), m);
    store_some(w.value + out + i, w.mix ? between(v, at(w.first), sigmoid(at(w.mix))) : v, m);
    store_some(minus + i, k * load_some(w.k_k + i, m), m);
    store_some(plus + i, rate, m);
  });
  float length = sqrtf(row_sum(minus, w.n, [](vf v) { return v * v; }));
  vf by = set1(1 / fmaxf(length, 1e-7f));
  vectors(w.n, [&](size_t i, int m) {
    vf unit = load_some(minus + i, m) * by;
    store_some(minus + i, set1(0) - unit, m);
    store_some(plus + i, unit * load_some(plus + i, m), m);
  });
}

void wkv_inputs(const WkvInputs& w) {
  for (size_t t = 0; t < w.steps; t++) inputs_of(w, t * w.row, t * w.n);
}

void wkv_outputs(const WkvOutputs& w) {
  for (size_t t = 0; t < w.steps; t++) {
    const float *y = w.y + t * w.n, *r = w.r + t * w.n, *k = w.k + t * w.n, *v = w.v + t * w.n;
    const float* gate = w.gate + t * w.row;
    float* out = w.out + t * w.row;
    vectors(w.n, [&](size_t i, int m) {
      store_some(out + i, load_some(r + i, m) * load_some(k + i, m) * load_some(w.r_k + i, m), m);
    });
    vf bonus = set1(row_sum(out, w.n, [](vf v) { return v; }));
    vectors(w.n, [&](size_t i, int m) {
      store_some(out + i, fma(bonus, load_some(v + i, m), load_some(y + i, m)) * load_some(gate + i, m), m);
    });
  }
}

}  // namespace

void fill_rwkv(Kernels& k) {
  k.lerp = lerp;
  k.wkv_inputs = wkv_inputs;
  k.wkv_outputs = wkv_outputs;
}

}  // namespace toast::TOAST_VARIANT
