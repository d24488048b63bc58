// Who computes which rows and columns of a float product. The arithmetic is in dense.cpp.
#include "dense_work.h"

#include <algorithm>

#include "threads.h"

namespace toast {
namespace {

// How each product of a batch is cut into tasks: rows and columns of one, and how many there are.
struct Cut {
  int rows, columns, down, across;

  Cut(const Matrix& b, int M, size_t products) {
    int panel = kernels().matmul_panel;
    int parts = std::max<size_t>(1, (size_t)M * b.K * 4 / tuning::MATMUL_TASK_BYTES);
    rows = ((M + parts - 1) / parts + 7) / 8 * 8;
    int pieces = std::max(1, tuning::TASKS_A_THREAD * threads() / (int)std::min<size_t>(products, 1 << 20));
    columns = std::max<size_t>(b.N / pieces, tuning::TASK_PRODUCTS / ((size_t)std::min(rows, M) * b.K + 1));
    columns = std::max(1, columns / panel) * panel;
    across = (b.N + columns - 1) / columns, down = (M + rows - 1) / rows;
  }
};

void run_task(const DenseProduct& p, const Cut& cut, int task, int M) {
  int m = task / cut.across * cut.rows, n = task % cut.across * cut.columns, rows = std::min(cut.rows, M - m);
  Output out = p.out;
  if (out.epilogue.c) out.epilogue.c += m * out.epilogue.c_row;
  out.data = (char*)out.data + (size_t)m * p.b.N * size_of(out.type);
  Scratch scratch(kernels().matmul_scratch(rows) * sizeof(float));
  kernels().matmul({p.a + m * p.a_row, p.a_row, p.b, rows, n, std::min(p.b.N, n + cut.columns), out}, scratch.floats());
}

}  // namespace

void run(const std::vector<DenseProduct>& products, int M) {
  Cut cut(products[0].b, M, products.size());
  int each = cut.down * cut.across;
  parallel(products.size() * each, [&](int i) { run_task(products[i / each], cut, i % each, M); });
}

}  // namespace toast
