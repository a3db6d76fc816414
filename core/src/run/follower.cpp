#include "run/follower.h"

namespace qmill {
namespace {

using Kind = CrewMessage::Kind;

constexpr std::chrono::seconds kBetweenFlushes(2);  // of work that a crash may cost

Error ended(const std::string& why) { return Error(ErrorKind::io, why).in("rank 0 ended the run"); }

}  // namespace

Follower::Follower(Peers& peers, const std::string& identity, const std::atomic<bool>* cancel) : Crew(peers, cancel) {
  try {
    send(0, {Kind::hello, identity, {}, {}, {}});
    await_begin();
  } catch (const Error& error) {
    end(&error);
    throw;
  }
}

// Without a limit of time: other ranks may still be planning. The program that started the ranks ends them.
void Follower::await_begin() {
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
  heard_ = Clock::now();
  Crew::begin(std::move(start));
}

void Follower::handle(int, const CrewMessage& message) {
  heard_ = Clock::now();
  if (message.kind == Kind::end && !message.text.empty()) throw ended(message.text);
  {
    const std::lock_guard lock(mutex_);
    if (message.kind == Kind::work) given_ = message.decisions;
    if (message.kind == Kind::end) ended_ = true;
  }
  changed_.notify_all();
}

void Follower::require_alive() {
  if (Clock::now() - heard_ > peers_.patience()) throw silent(0);
}

std::vector<std::size_t> Follower::next() {
  send(0, {Kind::want, {}, {}, {}, {}});
  wait([this] { return given_.has_value(); });
  const std::lock_guard lock(mutex_);
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
  send(0, {Kind::finished, {}, {}, std::move(pending_), {}});
  pending_.clear();
}

void Follower::complete() {
  flush();
  send(0, {Kind::done, {}, {}, {}, {}});
  wait([this] { return ended_; });
}

void Follower::end(const Error* error) {
  if (error == nullptr) return;
  try {
    send(0, {Kind::failed, {}, {}, {}, *error});
  } catch (...) {
    // Rank 0 notices that this rank says nothing.
  }
}

}  // namespace qmill
