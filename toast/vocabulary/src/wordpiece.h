// WordPiece: of a word the longest token that it begins with, then of the rest.
#pragma once
#include <vector>

#include "form.h"
#include "piece.h"

namespace vocabulary {

class WordPiece {
 public:
  explicit WordPiece(const Form& form) : form_(form) {}
  // The tokens of a word; the one for what is unknown if there are none, or if it is too long.
  void encode(const uint8_t* word, size_t n, std::vector<Piece>& out) const;

 private:
  Piece longest(const uint8_t* word, size_t n, uint32_t base) const;

  const Form& form_;
};

}  // namespace vocabulary
