// The thread pool: workers spin for a moment after a job, then sleep on a condition variable.
// A yield that does not come straight back means that others want the CPU: sleep at once.
#include "threads.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "cpus.h"

namespace toast {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto SPIN = std::chrono::microseconds(tuning::SPIN_US);
constexpr auto CROWDED = std::chrono::microseconds(tuning::CROWDED_US);

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Wait until done() for a moment; false when it is better to sleep.
template <class Done>
bool spin(Done done) {
  auto start = Clock::now(), last = start;
  while (last - start < SPIN) {
    for (int i = 0; i < 64; i++) {
      if (done()) return true;
      pause();
    }
    sched_yield();
    auto now = Clock::now();
    if (now - last > CROWDED) return done();
    last = now;
  }
  return done();
}

struct Job {
  void (*f)(void*, int);
  void* context;
  int n;
  std::atomic<int> next{0}, users{0};
  void work() {
    for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) f(context, i);
  }
};

thread_local bool inside = false;  // within a task: it runs its own parallel() alone

class Pool {
 public:
  explicit Pool(int workers) {
    for (int i = 0; i < workers; i++) std::thread([this] { loop(); }).detach();
  }

  void run(Job& job) {
    std::lock_guard<std::mutex> one_job_at_a_time(running_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (sleepers_.load()) wake_.notify_all();
    job.work();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = nullptr;  // nobody joins from here on
    }
    auto done = [&] { return job.users.load(std::memory_order_acquire) == 0; };
    if (!spin(done)) {
      std::unique_lock<std::mutex> lock(mutex_);
      left_.wait(lock, done);
    }
  }

 private:
  void loop() {
    inside = true;
    for (unsigned seen = 0;;) {
      auto fresh = [&] { return generation_.load(std::memory_order_acquire) != seen; };
      bool now = spin(fresh);
      Job* job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        if (!now) {
          sleepers_++;
          wake_.wait(lock, fresh);
          sleepers_--;
        }
        seen = generation_.load();
        job = job_;
        if (job) job->users.fetch_add(1);
      }
      if (!job) continue;
      job->work();
      std::lock_guard<std::mutex> lock(mutex_);
      if (job->users.fetch_sub(1, std::memory_order_release) == 1) left_.notify_one();
    }
  }

  std::mutex running_, mutex_;
  std::condition_variable wake_, left_;
  std::atomic<unsigned> generation_{0};
  std::atomic<int> sleepers_{0};
  Job* job_ = nullptr;
};

std::atomic<int> wanted{0};
std::atomic<Pool*> pool{nullptr};
std::mutex making;
// A child has no workers: forget the parent's pool (it is never freed) and make one when needed.
void forget_pool() {
  pool = nullptr;
  new (&making) std::mutex;
}

Pool& the_pool() {
  if (Pool* p = pool.load(std::memory_order_acquire)) return *p;
  std::lock_guard<std::mutex> lock(making);
  static bool registered = (pthread_atfork(nullptr, nullptr, forget_pool), true);
  (void)registered;
  if (!pool.load()) pool = new Pool(threads() - 1);
  return *pool.load();
}

}  // namespace

void set_threads(int n) {
  std::lock_guard<std::mutex> lock(making);
  wanted = n;
  pool = nullptr;  // idle workers of an old pool sleep until the process ends
}

int threads() {
  int n = wanted;
  if (n) return n;
  int found = usable_cpus();
  return wanted.compare_exchange_strong(n, found) ? found : n;
}

int helpers() { return inside ? 1 : threads(); }

void parallel_tasks(int n, void (*f)(void*, int), void* context) {
  if (n <= 1 || helpers() == 1) {
    for (int i = 0; i < n; i++) f(context, i);
    return;
  }
  Job job{f, context, n};
  inside = true;
  the_pool().run(job);
  inside = false;
}

}  // namespace toast
