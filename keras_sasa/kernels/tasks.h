// The work of one call, cut into tasks that share its tables. Any number of
// threads may run them in any order: the result has the same bits.

#ifndef KERAS_SASA_KERNELS_TASKS_H_
#define KERAS_SASA_KERNELS_TASKS_H_

#include <cstdint>

namespace keras_sasa {

class Tasks {
 public:
  virtual ~Tasks() = default;
  virtual int64_t tasks() const = 0;
  virtual void run(int64_t task) const = 0;
  // After all tasks: adds up what they found, in one order.
  virtual void finish() const {}
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_TASKS_H_
