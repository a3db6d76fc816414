#include "mpi_peers.h"

#include <qmill/error.h>

#include <boost/mpi/exception.hpp>

#include <cstdlib>
#include <thread>

namespace qmill {
namespace {

constexpr int kTag = 1;
constexpr std::chrono::milliseconds kPause(1);

// What MPI throws, as an Error.
template <class Function>
auto told(Function function) {
  try {
    return function();
  } catch (const boost::mpi::exception& error) {
    throw Error(ErrorKind::io, error.what(), "see what mpirun says of the other ranks");
  }
}

}  // namespace

std::chrono::seconds MpiPeers::patience_of_environment() {
  constexpr int kDefault = 60;
  const char* text = std::getenv("QMILL_MPI_PATIENCE");
  const int seconds = text == nullptr ? kDefault : std::atoi(text);
  return std::chrono::seconds(seconds > 0 ? seconds : kDefault);
}

void MpiPeers::send(int to, const std::string& text) {
  const std::lock_guard lock(mutex_);
  told([&] {
    forget_arrived();
    Sent& sent = sent_.emplace_back(Sent{text, {}});
    sent.request = world_.isend(to, kTag, sent.text.data(), static_cast<int>(sent.text.size()));
  });
}

void MpiPeers::forget_arrived() {
  sent_.remove_if([](Sent& sent) { return sent.request.test().has_value(); });
}

std::optional<Peers::Mail> MpiPeers::take() {
  const std::lock_guard lock(mutex_);
  return told([&]() -> std::optional<Mail> {
    forget_arrived();
    const auto found = world_.iprobe(boost::mpi::any_source, kTag);
    if (!found) return std::nullopt;
    Mail mail{found->source(), std::string(static_cast<std::size_t>(found->count<char>().value_or(0)), '\0')};
    world_.recv(mail.from, kTag, mail.text.data(), static_cast<int>(mail.text.size()));
    return mail;
  });
}

std::optional<Peers::Mail> MpiPeers::receive(std::chrono::milliseconds wait) {
  const auto end = std::chrono::steady_clock::now() + wait;
  do {
    if (std::optional<Mail> mail = take()) return mail;
    std::this_thread::sleep_for(kPause);
  } while (std::chrono::steady_clock::now() < end);
  return std::nullopt;
}

bool MpiPeers::finish() {
  auto end = std::chrono::steady_clock::now() + patience_;
  MPI_Request all = MPI_REQUEST_NULL;
  MPI_Ibarrier(world_, &all);
  int is_done = 0;
  while (MPI_Test(&all, &is_done, MPI_STATUS_IGNORE) == MPI_SUCCESS && is_done == 0) {
    if (std::chrono::steady_clock::now() > end) return false;
    if (receive(kPause)) end = std::chrono::steady_clock::now() + patience_;  // they live
  }
  return true;
}

}  // namespace qmill
