// One operation of a device at a time.

extension Device {
    /// Does one operation and waits; an error, or a transfer cut short, is thrown.
    func wait(_ submission: Submission) throws(Errno) {
        let completion = perform(submission)
        if let error = completion.error { throw error }
        guard submission.operation == .sync || completion.result == submission.byteCount else { throw .ioError }
    }
}
