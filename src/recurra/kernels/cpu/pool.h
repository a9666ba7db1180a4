// Memory that is kept between calls. Fresh pages cost ten times as much as a refill of old ones, and a training step
// of a recurrent network needs hundreds of megabytes of them: what one call gives back the next one takes.
#pragma once

#include <cstddef>

namespace recurra::pool {

void* take(size_t bytes);   // aligned for huge pages where it is large, for cache lines otherwise; throws std::bad_alloc
void give(void* memory);    // back to the pool; null is nothing

size_t held();              // bytes that the pool keeps and nobody uses
size_t used();              // bytes in use
size_t made();              // bytes that the system was asked for so far
void trim();                // gives what nobody uses back to the system
void poison(bool on);       // fill what is taken with NaN, for tests

// A block with an owner.
class Block {
   public:
    explicit Block(size_t bytes) : memory(bytes ? take(bytes) : nullptr) {}
    ~Block() { give(memory); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    void* data() const { return memory; }

   private:
    void* memory;
};

}  // namespace recurra::pool
