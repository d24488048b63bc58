// Making a trie of texts that is walked a byte a step.
#pragma once
#include <string_view>
#include <utility>
#include <vector>

#include "form.h"

namespace vocabulary {

// The units of a trie of (text, token); form.h says how they are read. No text is empty or has a NUL in it.
std::vector<Unit> double_array(std::vector<std::pair<std::string_view, uint32_t>> keys);

}  // namespace vocabulary
