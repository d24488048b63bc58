// Every constant that was chosen by measuring: what it does, why it is this large, and when that was measured.
// docs/notebook.md, "Tuned constants", names the machine. None of them changes a bit of a result, but for those that
// say so. Only C headers, as in vec.h.
#pragma once
#include <stddef.h>

namespace toast::tuning {

// ---- the thread pool (threads.cpp, threads.h) ----
constexpr int SPIN_US = 200;    // an idle worker spins so long: a decoding step's gaps are 5 to 50; 2026-11-23
constexpr int CROWDED_US = 30;  // a yield that takes longer: others want the CPU (it takes < 1 alone); 2026-11-23
constexpr size_t TASK_ELEMENTS = 1 << 14;  // of a norm or an activation, worth waking a thread for; 2026-11-23

// ---- quantised products (quantize.cpp, quantized.cpp, quantized_work.cpp) ----
// A tile: rows, and vectors of columns. 4 x 2 leaves registers for the weights; no shape is clearly faster; 2026-11-23
constexpr int QUANTIZED_ROWS = 4, QUANTIZED_PANEL = 2;
constexpr int CHUNK = 768;  // k unpacked at a time: such a panel fits the first cache. Decides bits; 2026-11-24
// A panel's rows, one below the other, of which more lie in one set of the first cache than it has ways push each
// other out of it: they are copied to one piece, so many steps at a time; 2026-11-30
constexpr size_t CACHE_WAY = 4096, CACHE_WAYS = 8;
constexpr int NEAR_STEPS = 4;
// The outlier rule of quantize.cpp: no real layer loses more than 1%. These decide bits.
constexpr float OUTLIER_ROW = 2;      // mean square over the typical one, in a row with outliers; 2026-11-24
constexpr float OUTLIER_RATIO = 8;    // typical squares that an outlier is above the next one; 2026-11-24
constexpr float OUTLIER_FAR = 4096;   // typical squares that make an outlier beside its equal; 2026-11-25
constexpr int QUANTIZE_AHEAD = 1024;  // elements: a row may lie in the third cache, and is prefetched; 2026-11-24
constexpr int QUANTIZE_ROWS = 16;     // of a task; 2026-11-23
constexpr size_t TASK_ACTIVATIONS = 256 << 10;  // int8, bytes of a task: they stay in the second cache; 2026-11-30
constexpr int UNPACKING_ROWS = 128;             // worth unpacking weights for, a tenth of their products; 2026-11-30
constexpr size_t TASK_PRODUCTS = 1 << 16;       // multiply-adds worth waking a thread for; 2026-11-23
constexpr int TASKS_A_THREAD = 4;               // so that threads end together; 2026-11-23
constexpr int TASKS_A_THREAD_OF_FEW_ROWS = 2;   // each has a first panel that comes slowly; 2026-11-25

// ---- float products (dense.cpp, dense_work.cpp) ----
// A tile by the number of vector registers: of 32, 24 sums, 3 columns and 1 broadcast; 2026-11-23
constexpr int matmul_rows(int registers) { return registers == 32 ? 8 : 4; }
constexpr int matmul_panel(int registers) { return registers == 32 ? 3 : 2; }
constexpr int MATMUL_CHUNK = 512;              // k packed at a time; 2026-11-23
constexpr int MATMUL_CHUNK_OF_FEW_ROWS = 64;   // what is packed for few rows is used at once; 2026-11-23
constexpr size_t MATMUL_TASK_BYTES = 1 << 20;  // of a's rows in a task; 2026-11-23

// ---- attention (attention.cpp, attention_work.cpp) ----
// A tile: queries, and vectors beside them, by the number of vector registers; 2026-11-23
constexpr int ATTENTION_ROWS = 4;
constexpr int attention_columns(int registers) { return registers == 32 ? 4 : 2; }
constexpr size_t ATTENTION_VALUES = 64;         // mixed at a time, so that they stay in the first cache; 2026-11-23
constexpr size_t ATTENTION_SCORES = 1 << 16;    // of a task: a quarter of an L2 cache; 2026-11-23
constexpr size_t ATTENTION_TASK_ROWS = 128;     // so that there are tasks for all threads; 2026-11-23
constexpr size_t ATTENTION_PRODUCTS = 1 << 16;  // multiply-adds worth waking a thread for; 2026-11-23

// ---- layers with a state (recurrence_work.cpp) ----
constexpr size_t RECURRENCE_STEPS = 64;  // made ready at once: queries and keys stay in the second cache; 2026-11-30
constexpr size_t CONVOLVED_CHANNELS = 1024;  // of a task; 2026-11-30

// ---- an encoder's layer (encoder_work.cpp) ----
// Bytes of a chunk's widest state, in the second cache, and the least rows that weights are unpacked for; 2026-11-25
constexpr size_t ENCODER_STATES = 384 << 10, ENCODER_ROWS = 32;
// With fewer chunks a thread the steps run one after the other, by all threads: of a layer, after attention; 2026-11-25
constexpr int LAYER_TASKS_A_THREAD = 4, FEED_FORWARD_TASKS_A_THREAD = 2;

// ---- search and files (scan_work.cpp, near_work.cpp, checksum_work.cpp) ----
constexpr size_t SCAN_ROWS = 512;            // vectors of a task; 2026-11-23
constexpr size_t NEAR_ROWS = 64;             // vectors that a task compares with a block; 2026-11-29
constexpr size_t CHECKSUM_BYTES = 64 << 10;  // read at once: still in the cache when they are summed; 2026-11-24

// ---- memory (bindings.cpp) ----
constexpr int KEPT_BLOCK = 32 << 20;    // freed blocks up to this size stay in the process; 2026-11-24
constexpr int KEPT_MEMORY = 256 << 20;  // so much of it; 2026-11-24

}  // namespace toast::tuning
