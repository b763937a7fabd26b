// One operation of a device at a time.

extension Device {
    /// Does one operation and waits for it. Throws its error; EIO if the transfer was cut short.
    func wait(_ submission: Submission) throws(Errno) {
        let completion = perform(submission)
        if let error = completion.error { throw error }
        guard submission.operation == .sync || completion.result == submission.byteCount else { throw .ioError }
    }
}
