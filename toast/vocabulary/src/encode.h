// Text to tokens by a compiled vocabulary, and back.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "added.h"
#include "model.h"
#include "normal.h"
#include "split.h"
#include "steps.h"

namespace vocabulary {

struct Token {
  uint32_t id, begin, end;  // in characters of the text
};

struct Count;

class Vocabulary {
 public:
  explicit Vocabulary(const std::string& path);
  Vocabulary(const uint8_t* data, size_t size);

  // The tokens of valid UTF-8. trim: blanks at the ends of a token are not of it (0, or what ByteLevel's
  // add_prefix_space says: 1 for false, 2 for true).
  std::vector<Token> encode(std::string_view text, int trim) const;
  // The bytes of ids, which may be no UTF-8.
  std::string decode(const uint32_t* ids, size_t n, bool skip_special) const;
  const Form& form() const { return form_; }

 private:
  struct Run;
  struct Places;
  void part(Run& run, std::string_view text, size_t first) const;
  void between(Run& run, std::string_view text, Places places) const;
  void spaced(Run& run, std::string_view text, Places places) const;
  void spell(std::string_view text, bool before, std::string& out) const;
  void put(Run& run, std::string_view text, Count& count, const Places& places,
           std::optional<std::string_view> shown = {}) const;
  void words(Run& run, std::string_view text, size_t begin, size_t end) const;
  void pieces(Run& run, std::string_view text, size_t at, size_t end) const;
  void piece(Run& run, std::string_view text, size_t at, size_t end) const;
  void place_skipped(Run& run, std::string_view word, size_t at) const;
  bool is_known(std::string_view character) const;

  Form form_;
  Finder raw_, normal_;
  Steps steps_;
};

}  // namespace vocabulary
