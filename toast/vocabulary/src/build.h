// Making a compiled vocabulary; docs/formats.md describes it.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "form.h"

namespace vocabulary {

struct Source {
  Options options;
  std::array<std::string, SECTIONS> sections;  // those that Python made: SETTINGS, CLASS_AT, ...
  std::vector<std::string> texts;              // of each token
  std::vector<uint8_t> flags;
  std::vector<uint8_t> findable;  // whether a text becomes this token
  std::vector<uint32_t> merges;   // left, right, token; in the order of their ranks
  std::vector<uint32_t> symbols;  // 256
  std::vector<double> scores;     // of Unigram: of each token, and of what is unknown; else none
  std::string prefix;             // of WordPiece's tokens inside of a word
  struct Entry {
    uint32_t token, flags;
    std::string content, sought;
  };
  std::vector<Entry> added;
};

// The file. Throws std::runtime_error where tables come out too crowded.
std::string build(const Source& source);

}  // namespace vocabulary
