// Calls of the operating system that fail on purpose: a program that links fault_shim.cpp has its functions instead of those of the C
// library, in all libraries that it loads. Linux only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace qmill::testing {

// Functions that do the same count as one: open and fopen64, remove and unlink.
enum class Call { open, read, write, sync, rename, exchange, truncate, reserve, copy, lock, link, unlink, mode };
constexpr Call kCalls[] = {Call::open,     Call::read,    Call::write, Call::sync, Call::rename, Call::exchange, Call::truncate,
                           Call::reserve,  Call::copy,    Call::lock,  Call::link, Call::unlink, Call::mode};

std::string_view name_of(Call call);

struct Fault {
  Call call = Call::open;
  std::uint64_t number = 0;  // the first call of the kind that fails, from 1
  int code = 0;              // errno; 0: not an error, but one byte at most is read, written or copied
  bool lasts = false;        // all later calls of the kind fail, too
};

// While it lives, calls for files below the folder are counted, and those of `faults` fail. One at a time.
class InjectedFaults {
 public:
  InjectedFaults(const std::filesystem::path& folder, std::vector<Fault> faults);
  ~InjectedFaults();
  InjectedFaults(const InjectedFaults&) = delete;
  InjectedFaults& operator=(const InjectedFaults&) = delete;

  std::uint64_t calls(Call call) const;
  bool met(const Fault& fault) const { return calls(fault.call) >= fault.number; }
};

}  // namespace qmill::testing
