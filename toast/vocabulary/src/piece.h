// What a word is cut into.
#pragma once
#include <cstdint>

namespace vocabulary {

struct Piece {
  uint32_t token, size;  // bytes of the word that it stands for; 0: those of the one before
};

}  // namespace vocabulary
