// An encoder's layer with norms after (BERT's) on raw memory: products, attention, norms, all in float32.
// One thread takes a chunk of texts from the first product to the last norm: what lies between stays in its cache.
// Made of the ops' own parts in the same order: the bits are theirs. Knows the kernels and the pool; knows nothing of
// MLX.
#pragma once
#include "kernels.h"

namespace toast {

// A linear layer: w of 2 to 6 or 8 bits, bias[N].
struct QuantLinear {
  QuantWeights w;
  const float* bias;
};

// y[rows, out.w.K], x[rows, D] -> norm2(h + down(f(up(h)))) of h = norm1(x + out(y)): z[rows, D].
struct AfterAttention {
  QuantLinear out, up, down;
  Norm norm1, norm2;
  Activation activation;
  int D() const { return out.w.N; }
  int F() const { return up.w.N; }
};
void run(AfterAttention l, const float* y, const float* x, float* z, int rows);

// A layer's attention: the product with q, k and v beside each other, and the mask [B, heads, L, L] by strides.
struct SelfAttention {
  QuantLinear qkv;
  int heads;
  float scale;
  Mask mask = Mask::none;
  const char* m = nullptr;
  int64_t m_text = 0, m_head = 0, m_row = 0;
  int width() const { return qkv.w.N / 3; }
};

// x[B, L, D] -> z, all of the layer.
struct EncoderLayer {
  SelfAttention attention;
  AfterAttention rest;
};
void run(EncoderLayer l, const float* x, float* z, int B, int L);

}  // namespace toast
