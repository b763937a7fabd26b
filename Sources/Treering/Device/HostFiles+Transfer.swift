// Reads, writes and flushes on the calling thread: the whole data path of the posix engine, and what the ring engine
// falls back to. No allocation, no lock.

import CLinux
import Glibc

extension HostFiles {
    /// How often in a row "try again" is believed before it becomes the answer.
    private static var retryLimit: Int { 10_000 }

    /// Does a submission to its end; returns what its completion reports.
    func perform(_ submission: Submission) -> Completion {
        let isSync = submission.operation == .sync
        let files: Descriptors
        do throws(Errno) {
            files = try table.begin(submission.file)
        } catch { return Completion(tag: submission.tag, result: -Int(error.rawValue)) }
        let lostError = isSync ? table.beginSync(submission.file) : 0
        var result = isSync ? flush(files.buffered) : transfer(submission, files)
        if lostError != 0 && result == 0 { result = -Int(lostError) }
        table.end(submission.file, isUnsynced: submission.leavesUnsynced(result))
        return Completion(tag: submission.tag, result: result)
    }

    /// fdatasync, 0 or a negative error. An error is reported once and never asked for again here.
    private func flush(_ descriptor: Int32) -> Int {
        while fdatasync(descriptor) != 0 {
            if errno != EINTR { return -Int(errno) }
        }
        return 0
    }

    private func transfer(_ submission: Submission, _ files: Descriptors) -> Int {
        var rest = submission
        var done = 0
        var retries = 0
        var mayGoDirect = true
        var needsFlush = false
        while rest.byteCount > 0 {
            let isDirect = mayGoDirect && self.mayGoDirect(rest, files)
            if !isDirect { readAhead(of: rest, files) }
            let result = once(rest, isDirect ? files.direct : files.buffered, &needsFlush)
            if result > 0 {
                if !isDirect && !mayGoDirect { directIsRefused.store(true, ordering: .relaxed) }
                rest.advance(by: result)
                done += result
                retries = 0
                continue
            }
            switch -result {
            case 0 where submission.operation == .read:
                return done
            case 0:
                return -Int(EIO)
            case Int(EINTR):
                break
            case Int(EAGAIN) where retries < Self.retryLimit:
                retries += 1
                sched_yield()
            case Int(EINVAL) where isDirect:
                mayGoDirect = false
            default:
                return result
            }
        }
        if needsFlush {
            let flushed = flush(files.buffered)
            if flushed < 0 { return flushed }
        }
        return done
    }

    /// One system call: bytes transferred, 0 at the end of the file, or a negative error.
    @inline(__always)
    private func once(_ rest: Submission, _ descriptor: Int32, _ needsFlush: inout Bool) -> Int {
        withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { vectors in
            let base = vectors.baseAddress!
            let count = rest.fill(base)
            let offset = off_t(rest.offset)
            var result: Int
            switch rest.operation {
            case .read:
                result = preadv(descriptor, base, count, offset)
            case .writeDurable where !lacksDurableWrites.load(ordering: .relaxed):
                result = pwritev2(descriptor, base, count, offset, Int32(LINUX_RWF_DSYNC))
                if result < 0 && (errno == EOPNOTSUPP || errno == ENOSYS) {
                    lacksDurableWrites.store(true, ordering: .relaxed)
                    needsFlush = true
                    result = pwritev(descriptor, base, count, offset)
                }
            default:
                needsFlush = rest.operation == .writeDurable
                result = pwritev(descriptor, base, count, offset)
            }
            return result >= 0 ? result : -Int(errno)
        }
    }
}
