// The work of one call, divided into tasks that share its tables. Any number of
// threads may run them in any order: the result has the same bits.

#ifndef KERAS_SASA_KERNELS_BASE_TASKS_H_
#define KERAS_SASA_KERNELS_BASE_TASKS_H_

#include <cstdint>

namespace keras_sasa {

class Tasks {
 public:
  virtual ~Tasks();
  virtual int64_t count() const = 0;
  virtual void Run(int64_t task) const = 0;
  // Called after all tasks: adds up their results, always in the same order.
  virtual void Finish() const;
};

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_BASE_TASKS_H_
