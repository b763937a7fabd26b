// Operations that wait for their result, for callers without a kernel: tests, and the offline tools.

extension Volume {
    /// Runs an operation to its end, fetching pages and making room as needed.
    func perform<Result>(_ operation: (Core) throws(Stop) -> Result) throws(Errno) -> Result {
        try runWaiting(operation)
    }

    /// Carries out a planned read and gives its bytes.
    func bytes(_ plan: (Core) throws(Stop) -> ReadPlan) throws(Errno) -> [UInt8] {
        let plan = try runWaiting(plan)
        let box = ResultBox()
        execute(plan, mayWait: true) { plan, error in
            box.error = error
            if error == nil { box.bytes = Array(plan.bytes) }
            box.isDone = true
        }
        wait { _ in box.isDone }
        recycle(plan)
        if let error = box.error { throw error }
        return box.bytes
    }

    /// Makes everything done so far durable.
    func syncAndWait() throws(Errno) {
        let box = ResultBox()
        sync(mayWait: true) { error in
            box.error = error
            box.isDone = true
        }
        wait { _ in box.isDone }
        if let error = box.error { throw error }
    }
}

private final class ResultBox: @unchecked Sendable {
    var isDone = false
    var error: Errno?
    var bytes: [UInt8] = []
}
