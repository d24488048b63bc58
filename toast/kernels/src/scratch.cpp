// Scratch memory: a stack of pieces for every thread, a piece for every depth, each as large as it ever had to be.
#include <cstdlib>
#include <new>
#include <vector>

#include "threads.h"

namespace toast {
namespace {

struct Piece {
  void* data = nullptr;
  size_t size = 0;
};

struct Stack {
  std::vector<Piece> pieces;
  size_t depth = 0;
  ~Stack() {
    for (auto& piece : pieces) std::free(piece.data);
  }
};
thread_local Stack stack;

}  // namespace

Scratch::Scratch(size_t bytes) {
  if (stack.depth == stack.pieces.size()) stack.pieces.emplace_back();
  Piece& piece = stack.pieces[stack.depth];
  if (piece.size < bytes) {
    std::free(piece.data);
    piece = {};
    size_t size = (bytes + 4095) / 4096 * 4096;
    piece.data = std::aligned_alloc(64, size);
    if (!piece.data) throw std::bad_alloc();
    piece.size = size;
  }
  stack.depth++;
  data_ = static_cast<char*>(piece.data);
}

Scratch::~Scratch() { stack.depth--; }

}  // namespace toast
