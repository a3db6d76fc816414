// The ranks of an MPI job.
#pragma once

#include <qmill/core/peers.h>

#include <boost/mpi/communicator.hpp>
#include <boost/mpi/request.hpp>

#include <list>
#include <mutex>

namespace qmill {

class MpiPeers final : public Peers {
 public:
  int rank() const override { return rank_; }
  int count() const override { return count_; }
  void send(int to, const std::string& text) override;
  std::optional<Mail> receive(std::chrono::milliseconds wait) override;
  std::chrono::seconds patience() const override { return patience_; }

  // All ranks call it at their end: takes what is still on the way. False if one of them does not come.
  bool finish();

 private:
  struct Sent {
    std::string text;
    boost::mpi::request request;
  };

  std::optional<Mail> take();
  void forget_arrived();

  boost::mpi::communicator world_;
  const int rank_ = world_.rank();
  const int count_ = world_.size();
  const std::chrono::seconds patience_ = patience_of_environment();
  std::mutex mutex_;  // MPI is called by one thread at a time
  std::list<Sent> sent_;

  static std::chrono::seconds patience_of_environment();
};

}  // namespace qmill
