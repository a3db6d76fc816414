#include "run/follower.h"

#include <fmt/format.h>

namespace qmill {
namespace {

using Kind = CrewMessage::Kind;

constexpr std::chrono::seconds kBetweenFlushes(2);  // of work that a crash may cost

Error ended(const std::string& why) { return Error(ErrorKind::io, why).in("rank 0 ended the run"); }

Error silent(std::chrono::seconds patience) {
  Error error(ErrorKind::io, fmt::format("it has said nothing for {} s", patience.count()), "see whether its machine and its disk answer");
  return error.in("rank 0");
}

}  // namespace

Follower::Follower(Peers& peers, const std::string& digest, const std::atomic<bool>* cancel) : peers_(peers), cancel_(cancel) {
  await_begin(digest);
}

Follower::~Follower() { stop(); }

void Follower::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  if (listener_.joinable()) listener_.join();
}

void Follower::throw_if_cancelled() const {
  if (cancel_ != nullptr && *cancel_) throw Error(ErrorKind::cancelled, "interrupted");
}

// Without a limit of time: other ranks may still be planning. Who starts them ends them.
void Follower::await_begin(const std::string& digest) {
  peers_.send(0, crew_text({Kind::hello, digest, {}, {}, {}}));
  while (true) {
    throw_if_cancelled();
    const std::optional<Peers::Mail> mail = peers_.receive(kTick);
    if (!mail) continue;
    const CrewMessage message = parse_crew_message(mail->text);
    if (message.kind == Kind::begin) return;
    if (message.kind == Kind::end) throw ended(message.text);
  }
}

void Follower::begin(WorkStart start) {
  start_ = std::move(start);
  listener_ = std::thread([this] { listen(); });
}

void Follower::listen() {
  Clock::time_point heard = Clock::now();
  Clock::time_point beat = heard;
  const auto is_over = [this] {
    const std::lock_guard lock(mutex_);
    return ended_ || stopping_;
  };
  while (!is_over()) {
    try {
      if (const std::optional<Peers::Mail> mail = peers_.receive(kTick)) {
        heard = Clock::now();
        const CrewMessage message = parse_crew_message(mail->text);
        if (message.kind == Kind::end && !message.text.empty()) throw ended(message.text);
        const std::lock_guard lock(mutex_);
        if (message.kind == Kind::work) given_ = message.decisions;
        if (message.kind == Kind::end) ended_ = true;
        changed_.notify_all();
      }
      if (Clock::now() - heard > peers_.patience()) throw silent(peers_.patience());
      if (Clock::now() - beat < kBeat) continue;
      beat = Clock::now();
      peers_.send(0, crew_text({}));
    } catch (...) {
      return fail(std::current_exception());
    }
  }
}

void Follower::fail(std::exception_ptr failure) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = failure;
  }
  changed_.notify_all();
  start_.on_failure(std::move(failure));
}

std::vector<std::size_t> Follower::next() {
  peers_.send(0, crew_text({Kind::want, {}, {}, {}, {}}));
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kTick, [&] { return failure_ || given_; })) throw_if_cancelled();
  if (failure_) return {};
  std::vector<std::size_t> given = std::move(*given_);
  given_.reset();
  return given;
}

void Follower::finished(FinishedDecision finished) {
  pending_.push_back(std::move(finished));
  if (Clock::now() - flushed_ >= kBetweenFlushes) flush();
}

void Follower::flush() {
  flushed_ = Clock::now();
  if (pending_.empty()) return;
  start_.store();
  peers_.send(0, crew_text({Kind::finished, {}, {}, std::move(pending_), {}}));
  pending_.clear();
}

void Follower::complete() {
  flush();
  peers_.send(0, crew_text({Kind::done, {}, {}, {}, {}}));
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kTick, [&] { return failure_ || ended_; })) throw_if_cancelled();
  if (failure_) std::rethrow_exception(failure_);
}

void Follower::end(const Error* error) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_ || error == nullptr) return;  // the leader knows
  }
  try {
    peers_.send(0, crew_text({Kind::failed, {}, {}, {}, *error}));
  } catch (const Error&) {
    // The leader notices that this rank says nothing.
  }
}

}  // namespace qmill
